package docker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"github.com/berthd/berth/agent"
)

// What follows are the only calls that change anything at the engine. None is ever
// forced, so that the engine has the last word on what is in use; none takes a
// volume along; and none is one of its "prune" calls, which choose by themselves.

// Images returns all images but the intermediate layers of builds. The error names
// the call and the engine. It is safe for concurrent use.
func (e *Engine) Images(ctx context.Context) ([]agent.Image, error) {
	all, err := e.client().ImageList(ctx, image.ListOptions{})
	if err != nil {
		return nil, e.wrap("list images", err)
	}
	out := make([]agent.Image, 0, len(all))
	for _, im := range all {
		a := agent.Image{ID: im.ID, Created: time.Unix(im.Created, 0), Size: im.Size}
		for _, ref := range im.RepoTags {
			if ref != "<none>:<none>" { // how API 1.41 and 1.42 write that there is none
				a.Refs = append(a.Refs, ref)
			}
		}
		out = append(out, a)
	}
	return out, nil
}

// RemoveImage removes one image by its ID, and parents of it that have no name and no
// other use. An image with several names is refused by the engine, as is one that a
// container uses: the error wraps agent.ErrInUse then, and agent.ErrNotFound if there
// is none. It is safe for concurrent use.
func (e *Engine) RemoveImage(ctx context.Context, id string) error {
	_, err := e.client().ImageRemove(ctx, id, image.RemoveOptions{Force: false, PruneChildren: true})
	return e.refused("remove image "+id, err)
}

// RemoveContainer removes one container by its ID, unless it runs, and none of its
// volumes. Errors are as those of RemoveImage. It is safe for concurrent use.
func (e *Engine) RemoveContainer(ctx context.Context, id string) error {
	err := e.client().ContainerRemove(ctx, id, container.RemoveOptions{Force: false, RemoveVolumes: false})
	return e.refused("remove container "+agent.ShortID(id), err)
}

// refused tells the refusals that are no trouble from others.
func (e *Engine) refused(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errdefs.IsNotFound(err):
		return errors.Join(agent.ErrNotFound, e.wrap(op, err))
	case errdefs.IsConflict(err):
		return fmt.Errorf("%w: %w", agent.ErrInUse, e.wrap(op, err))
	}
	return e.wrap(op, err)
}
