// Package docker breaks the import rule.
package docker

import (
	_ "github.com/docker/docker/client"

	_ "github.com/berthd/berth/agent"
	_ "github.com/berthd/berth/sinks/stdout"
	_ "github.com/berthd/berth/test/apps"
)
