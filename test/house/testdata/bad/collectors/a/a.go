// Package a breaks the import rule.
package a

import (
	_ "testing"

	_ "github.com/aws/aws-sdk-go-v2/aws"

	_ "github.com/berthd/berth/agent/docker"
	_ "github.com/berthd/berth/collectors/b"
	_ "github.com/berthd/berth/sinks/stdout"
)
