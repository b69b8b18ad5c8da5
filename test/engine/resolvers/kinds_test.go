package resolvers

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"golang.org/x/sync/errgroup"

	"github.com/berthd/berth/test/engine/enginetest"
)

// kind is one way in which programs in containers resolve names: a resolver,
// with an image that has nothing else but /lookup (and for glibc its files).
type kind struct {
	name string
	// layer is the image's only layer.
	layer []byte
	// blind are the types of questions, such as "a", of which a program cannot
	// tell a name that does not exist from one without records of the type.
	blind []string
	// udpOnly resolvers take an answer that was cut short for a whole one.
	udpOnly bool
}

// The kinds, made by TestMain.
var (
	golang = &kind{name: "go", blind: []string{"a", "aaaa", "addr", "srv", "txt"}}
	glibc  = &kind{name: "glibc"}
	musl   = &kind{name: "musl"}
	kinds  = []*kind{golang, glibc, musl}
)

// programs are what TestMain builds.
var programs struct {
	berth     string
	named     string // of BIND
	namedLibs string // the folder of its own libraries
}

// build makes all programs and layers, in dir.
func build(dir string) error {
	programs.berth = filepath.Join(dir, "berth")
	var g errgroup.Group
	g.Go(func() error { return goBuild(programs.berth, "github.com/berthd/berth/cmd/berth") })
	g.Go(func() error {
		root := filepath.Join(dir, golang.name)
		err := goBuild(filepath.Join(root, "lookup"), "github.com/berthd/berth/test/engine/resolvers/lookup")
		return errors.Join(err, golang.pack(root))
	})
	g.Go(func() error {
		root := filepath.Join(dir, musl.name)
		err := compile("musl-gcc", filepath.Join(root, "lookup"), "-static")
		return errors.Join(err, musl.pack(root))
	})
	g.Go(func() error {
		root := filepath.Join(dir, glibc.name)
		err := errors.Join(debianRoot(root), compile("gcc", filepath.Join(root, "lookup"), "-lresolv"))
		return errors.Join(err, glibc.pack(root))
	})
	g.Go(func() error {
		root := filepath.Join(dir, "bind")
		err := unpack(root, "bind9", "bind9-libs", "libcap2")
		programs.named = filepath.Join(root, "usr/sbin/named")
		libs, _ := filepath.Glob(filepath.Join(root, "*lib*/*-linux-gnu")) // libcap's, where /lib is a folder
		usrLibs, _ := filepath.Glob(filepath.Join(root, "usr/lib/*-linux-gnu"))
		programs.namedLibs = strings.Join(append(libs, usrLibs...), ":")
		return err
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return examineMusl()
}

// examineMusl finds out what musl's resolver cannot do. Until 1.2.4 it had no
// TCP, and getaddrinfo no error for a name without records of the type.
func examineMusl() error {
	libs, err := filepath.Glob("/usr/lib/*-linux-musl/libc.so")
	if err != nil || len(libs) == 0 {
		return fmt.Errorf("find musl's library: %v (`make setup` installs musl-tools)", err)
	}
	said, _ := exec.Command(libs[0]).CombinedOutput() // it is a program as well, and complains
	m := regexp.MustCompile(`Version (\d+)\.(\d+)\.(\d+)`).FindSubmatch(said)
	if m == nil {
		return fmt.Errorf("find musl's version: it says %q", said)
	}
	var version []int
	for _, digits := range m[1:] {
		n, err := strconv.Atoi(string(digits))
		if err != nil {
			return fmt.Errorf("find musl's version: %w", err)
		}
		version = append(version, n)
	}
	if slices.Compare(version, []int{1, 2, 4}) < 0 {
		musl.udpOnly = true
		musl.blind = []string{"a", "aaaa", "addr"}
	}
	return nil
}

func goBuild(out, pkg string) error {
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return run(cmd)
}

func compile(compiler, out string, last string) error {
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	err := run(exec.Command(compiler, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-o", out, "testdata/lookup.c", last))
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w (`make setup` installs it)", err)
	}
	return err
}

func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// debianRoot makes a folder with the files of a small Debian.
func debianRoot(root string) error {
	if err := unpack(root, "base-files", "libc-bin", "libc6"); err != nil {
		return err
	}
	// What would make the image large, and asks nothing.
	for _, pattern := range []string{"usr/share/doc", "usr/share/common-licenses", "usr/lib/*/gconv", "usr/lib/locale", "sbin", "usr/sbin"} {
		found, _ := filepath.Glob(filepath.Join(root, pattern))
		for _, path := range found {
			if info, err := os.Lstat(path); err != nil || !info.IsDir() {
				continue // a link into usr
			}
			if err := os.RemoveAll(path); err != nil {
				return err
			}
		}
	}
	// As the package's script does when it is installed.
	conf, err := os.ReadFile(filepath.Join(root, "usr/share/libc-bin/nsswitch.conf"))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "etc/nsswitch.conf"), conf, 0o644)
}

// unpack puts the files of Debian packages into a folder, without installing
// them. `make setup` has downloaded them.
func unpack(root string, packages ...string) error {
	const debs = "../../../.cache/debian"
	for _, name := range packages {
		found, err := filepath.Glob(filepath.Join(debs, name+"_*.deb"))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("unpack %s: there are %d such packages in %s: run `make setup`, which downloads them", name, len(found), debs)
		}
		if err := os.MkdirAll(root, 0o755); err != nil {
			return err
		}
		if err := run(exec.Command("dpkg-deb", "--extract", found[0], root)); err != nil {
			return err
		}
	}
	return nil
}

// pack makes the image's layer of all files of a folder.
func (k *kind) pack(root string) error {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		return pack(w, root, path, d)
	})
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("pack image %s: %w", k.name, err)
	}
	k.layer = layer.Bytes()
	return nil
}

func pack(w *tar.Writer, root, path string, d fs.DirEntry) error {
	info, err := d.Info()
	if err != nil {
		return err
	}
	link := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, link)
	if err != nil {
		return err
	}
	if header.Name, err = filepath.Rel(root, path); err != nil {
		return err
	}
	if err := w.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	_, err = w.Write(data)
	return err
}

// load makes the kind's image in an engine, and returns its reference.
func (k *kind) load(t *testing.T, e *enginetest.Engine) string {
	t.Helper()
	ref := "berth-test/lookup-" + k.name
	progress, err := e.Client.ImageImport(t.Context(),
		image.ImportSource{Source: bytes.NewReader(k.layer), SourceName: "-"}, ref,
		image.ImportOptions{Changes: []string{`ENTRYPOINT ["/lookup"]`, `CMD ["wait"]`}})
	if err != nil {
		t.Fatalf("import image %s: %v", ref, err)
	}
	defer progress.Close()
	if _, err := io.Copy(io.Discard, progress); err != nil {
		t.Fatalf("import image %s: %v", ref, err)
	}
	return ref
}

// client is a container that asks.
type client struct {
	*enginetest.Container
	kind *kind
	// server is asked instead of those of resolv.conf, if set; Go's alone can.
	server string
}

// startClient starts a container of a kind. Of the specification it wants what
// concerns the network.
func (w *world) startClient(t *testing.T, k *kind, spec enginetest.Spec) client {
	t.Helper()
	spec.Name = "asks-" + k.name
	spec.Args = []string{"wait"}
	spec.Adjust = func(c *container.Config, h *container.HostConfig) {
		c.Image = w.images[k]
		h.DNSSearch = []string{"."} // none, whatever this machine's are
	}
	c := client{Container: w.CreateContainer(t, spec), kind: k}
	enginetest.Await(t, limit, "start container "+c.Name, func(ctx context.Context) error {
		err := w.Client.ContainerStart(ctx, c.ID, container.StartOptions{})
		// Engines of version 20.10 lose a race of their own, now and then, when
		// they put a container into its network: it starts when told again.
		if err != nil && !strings.Contains(err.Error(), "error running hook") {
			t.Fatal(err)
		}
		return err
	})
	return c
}

// ask asks questions such as "srv/_web._tcp.test.internal", all in one process
// of the container, and returns the answers to each, sorted.
func (c client) ask(t *testing.T, questions ...string) map[string]string {
	t.Helper()
	command := []string{"/lookup"}
	if c.server != "" {
		command = append(command, "-server", c.server)
	}
	out := c.Exec(t, append(command, questions...)...)
	answers := make(map[string]string)
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) > 0 && slices.Contains(questions, fields[0]) {
			slices.Sort(fields[1:])
			answers[fields[0]] = strings.Join(slices.Compact(fields[1:]), " ")
		}
	}
	if len(answers) != len(questions) {
		t.Fatalf("%s: asked %d questions, got: %s", c.kind.name, len(questions), out)
	}
	return answers
}

// check asks questions and compares the answers. Those of an answer are
// separated by spaces and sorted; "!nxdomain" is a name that does not exist and
// "!nodata" one without such records, where the resolver tells them apart.
func (c client) check(t *testing.T, want map[string]string) {
	t.Helper()
	var questions []string
	for q := range want {
		questions = append(questions, q)
	}
	slices.Sort(questions)
	got := c.ask(t, questions...)
	for _, q := range questions {
		if want := c.kind.sees(q, want[q]); got[q] != want {
			t.Errorf("%s, asked for %s: got %.200q, want %.200q", c.kind.name, q, got[q], want)
		}
	}
}

// sees returns what is left of an answer for programs of this kind.
func (k *kind) sees(question, answer string) string {
	qtype, _, _ := strings.Cut(question, "/")
	if answer == "!nodata" && slices.Contains(k.blind, qtype) {
		return "!nxdomain"
	}
	return answer
}
