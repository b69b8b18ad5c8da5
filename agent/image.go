package agent

import (
	"errors"
	"time"
)

// ErrInUse is what removing an image or a container returns, wrapped or not, when
// the engine would have to be forced.
var ErrInUse = errors.New("in use")

// Image is what berth knows of one image of the engine.
type Image struct {
	ID      string   // "sha256:…"
	Refs    []string // its references, as "shop/web:1.4"; empty for one without a name
	Created time.Time
	Size    int64 // bytes, those that it shares with other images among them
}
