// Package stdout breaks the import rule.
package stdout

import (
	_ "github.com/berthd/berth/cmd/berth"
	_ "github.com/berthd/berth/collectors/b"
)
