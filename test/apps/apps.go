// Package apps puts the sample applications into a Docker engine, as images
// made FROM scratch of one static binary that is built here from our own code.
// Nothing is pulled.
//
// The applications are calc, time and portal, three small services that find
// each other by DNS, metrics, which sends some, burner, which uses CPU time and memory by
// measure, and sleeper, which does nothing in
// many ways; each is a package in the folder of its name. An image's tag is a hash of the source,
// so an engine that has it already answers at once, and a change of the source
// makes a new one.
package apps

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"
)

// The images that Ensure can make.
const (
	All     = "app" // any application: the first argument is its name
	Calc    = "calc"
	Metrics = "metrics"
	Time    = "time"
	Portal  = "portal"
	Sleeper = "sleeper"
	Burner  = "burner"
)

// binary is where an image has its only file.
const binary = "/app"

//go:embed app/*.go burner/*.go calc/*.go metrics/*.go portal/*.go serve/*.go sleeper/*.go time/*.go
var source embed.FS

// Ensure makes sure that the engine has the image of the application name (one
// of the constants) in the repository repo, such as "berth-test", and returns
// its reference, such as "berth-test/calc:0123456789ab". An application's
// image takes the application's flags as its command. Images older than a day
// of the same name and another source are removed, unless they are in use.
//
// It may be called by many goroutines.
func Ensure(ctx context.Context, cli *client.Client, repo, name string) (string, error) {
	tag, err := sourceHash()
	if err != nil {
		return "", err
	}
	ref := repo + "/" + name + ":" + tag
	if _, err := cli.ImageInspect(ctx, ref); err == nil {
		return ref, nil
	}
	layer, err := buildLayer()
	if err != nil {
		return "", err
	}
	entrypoint := fmt.Sprintf(`ENTRYPOINT [%q]`, binary)
	if name != All {
		entrypoint = fmt.Sprintf(`ENTRYPOINT [%q, %q]`, binary, name)
	}
	for try := 1; ; try++ {
		err := importLayer(ctx, cli, layer, ref, entrypoint)
		if err == nil {
			break
		}
		// Engine 20.10 starts a process for the unpacking that is to die with
		// its parent thread, and Go may end that thread at any time: the import
		// then fails with "signal: killed" though nothing is wrong.
		if try == importTries || !strings.Contains(err.Error(), "signal: killed") {
			return "", fmt.Errorf("import image %s: %w", ref, err)
		}
	}
	removeOld(ctx, cli, repo+"/"+name, ref)
	return ref, nil
}

const importTries = 5

func importLayer(ctx context.Context, cli *client.Client, layer []byte, ref, entrypoint string) error {
	progress, err := cli.ImageImport(ctx,
		image.ImportSource{Source: bytes.NewReader(layer), SourceName: "-"}, ref,
		image.ImportOptions{Changes: []string{entrypoint}, Message: "berth sample application"})
	if err != nil {
		return err
	}
	defer progress.Close()
	_, err = io.Copy(io.Discard, progress) // the import ends with it
	return err
}

// removeOld is a courtesy: that it fails is of no account to the caller.
func removeOld(ctx context.Context, cli *client.Client, name, keep string) {
	list, err := cli.ImageList(ctx, image.ListOptions{Filters: filters.NewArgs(filters.Arg("reference", name))})
	if err != nil {
		return
	}
	for _, img := range list {
		if time.Since(time.Unix(img.Created, 0)) < 24*time.Hour {
			continue
		}
		for _, ref := range img.RepoTags {
			if ref != keep {
				cli.ImageRemove(ctx, ref, image.RemoveOptions{})
			}
		}
	}
}

// sourceHash returns what an image's tag says of its content: twelve digits of
// a hash of the source and of what compiles it.
func sourceHash() (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, runtime.Version(), runtime.GOARCH)
	err := fs.WalkDir(source, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if ok, _ := filepath.Match("*_test.go", d.Name()); ok {
			return nil
		}
		data, err := source.ReadFile(path)
		fmt.Fprintf(h, "%s %d\n%s", path, len(data), data)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read source of the sample applications: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil))[:12], nil
}

// buildLayer returns the layer of all images, a tar file: built once for a
// process, however many engines it fills. The go command finds the source by
// its import path, so the caller must run inside the module, as tests do.
var buildLayer = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "berth-apps-")
	if err != nil {
		return nil, fmt.Errorf("build the sample applications: %w", err)
	}
	defer os.RemoveAll(dir)
	bin := filepath.Join(dir, "app")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w",
		"-o", bin, "github.com/berthd/berth/test/apps/app")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-mod=readonly")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the sample applications: %w\n%s", err, out)
	}
	data, err := os.ReadFile(bin)
	if err != nil {
		return nil, fmt.Errorf("build the sample applications: %w", err)
	}
	return tarOf(data)
})

func tarOf(data []byte) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	if err := w.WriteHeader(&tar.Header{Name: binary[1:], Mode: 0o755, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write layer: %w", err)
	}
	return buf.Bytes(), nil
}
