// Package apps is good: test/ may import anything.
package apps

import (
	_ "github.com/docker/docker/client"

	_ "github.com/berthd/berth/sinks/stdout"
)
