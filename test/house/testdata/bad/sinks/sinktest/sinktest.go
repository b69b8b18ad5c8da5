// Package sinktest is good: it is for tests.
package sinktest

import (
	_ "testing"

	_ "github.com/berthd/berth/agent"
)
