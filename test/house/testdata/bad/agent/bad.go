// Package agent breaks the rules.
package agent

import (
	_ "github.com/docker/docker/client"
	_ "github.com/miekg/dns"

	_ "github.com/berthd/berth/agent/docker"
)

func Func() {}

type Type struct{}

func (t *Type) Method() {}

const Const = 1

func (g Generic[T]) Method() {}

type (
	InGroup struct{}
	// Generic is good.
	Generic[T any] struct{}
)

// Grouped are good, by one comment.
const (
	GroupedA = 1
	GroupedB = 2
)

var Line = 1 // good

func (h hidden) Method() {}

type hidden struct{}
