package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/berthd/berth/test/bench/rig"
)

// world is the engine, the containers, and two berths.
type world struct {
	settings
	*rig.World

	ids []string // the containers that run all the time

	direct  *rig.Berth // speaks to the engine itself
	watched *rig.Berth // through proxy
	proxy   *proxy
	rss     []uint64 // of both, in bytes
}

func newWorld(s settings) *world { return &world{settings: s, World: &rig.World{Binary: s.berth}} }

// populate starts the containers that run all the time, half of them with a
// name.
func (w *world) populate(ctx context.Context, _ *rig.Table) (err error) {
	specs := make([]rig.Spec, w.containers)
	for i := range specs {
		specs[i].Name = fmt.Sprintf("base%03d", i)
		if i%2 == 0 {
			specs[i].Claims = specs[i].Name
		}
	}
	w.ids, err = w.StartAll(ctx, specs)
	return err
}

// clear removes all that was made, whatever state it is in.
func (w *world) clear() error {
	err := errors.Join(w.direct.Stop(), w.watched.Stop())
	w.proxy.close()
	return errors.Join(err, w.Close())
}
