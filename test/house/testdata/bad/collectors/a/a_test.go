package a

import (
	_ "testing"

	_ "github.com/berthd/berth/test/apps"
)
