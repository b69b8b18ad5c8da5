// Package statsd tests the statsd relay with real containers: the clients that
// people use, on the networks that an engine makes, and what happens to their
// lines when berth or the upstream goes away for a while. The upstream is a real
// statsd_exporter, or, where lines are counted to the last one, a socket of the
// test's own.
//
// Each test has a host of its own: an engine in a network namespace, where berth
// has port 8125 of the bridges.
package statsd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/docker/docker/api/types/container"
	"go.uber.org/goleak"

	"github.com/berthd/berth/collectors/statsd"
	"github.com/berthd/berth/test/apps"
	"github.com/berthd/berth/test/engine/enginetest"
)

// The programs under test, built once.
var program, exporterProgram string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err == nil && code == 0 {
		err = goleak.Find()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "berth-statsd-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	program, exporterProgram = filepath.Join(dir, "berth"), filepath.Join(dir, "statsd_exporter")
	for _, b := range []struct{ dir, out, pkg string }{
		{".", program, "github.com/berthd/berth/cmd/berth"},
		{"../../tools/statsd-exporter", exporterProgram, "github.com/prometheus/statsd_exporter"},
	} {
		cmd := exec.Command("go", "build", "-buildvcs=false", "-o", b.out, b.pkg)
		cmd.Dir = b.dir
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build %s: %w\n%s", b.pkg, err, out)
		}
	}
	return m.Run(), nil
}

// TestClients has the clients that people use reach a statsd_exporter.
func TestClients(t *testing.T) {
	w := newWorld(t)
	x := w.startExporter(t)
	w.configure(t, "upstream: "+exporterAt, "tags: ['region:eu']")
	w.start(t)
	own := w.CreateNetwork(t, "own", "10.77.0.0/24")

	const count = 250
	image := strings.Split(w.Image(t), ":")[0]
	want := make(map[string]float64)
	for _, network := range []string{"", own} {
		for _, client := range []string{"udp", "datadog"} {
			service := client
			if network != "" {
				service += "-own"
			}
			c := w.StartContainer(t, enginetest.Spec{Name: service, Network: network, Labels: labels(service)})
			w.knows(t, c)
			// To the gateway, which it computes as entrypoint scripts do.
			c.Exec(t, "/app", apps.Metrics, "-client", client, "-name", "shop."+client, "-count", fmt.Sprint(count), "-tags", "color:red", "-once")
			id := ""
			if client == "datadog" { // it says so itself, and is left alone
				id = fmt.Sprintf("container_id=%q,", c.ID)
			}
			tags := fmt.Sprintf(`{color="red",%senv="test",image_name=%q,region="eu",service=%q}`, id, image, service)
			want["shop_"+client+tags] = count
			if client == "datadog" {
				want["shop_datadog_last"+tags] = count
				want["shop_datadog_took_count"+tags] = 1
				want["shop_datadog_took_sum"+tags] = 0.25
			}
		}
	}
	x.await(t, want)
	// Nothing came that is not one of these.
	got, err := x.metrics(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range got {
		head, _, _ := strings.Cut(name, "{")
		if (head == "shop_udp" || head == "shop_datadog") && want[name] != value {
			t.Errorf("%s is %v, and nobody sent it", name, value)
		}
		if strings.HasPrefix(name, "statsd_exporter_sample_errors_total") || strings.HasPrefix(name, "statsd_exporter_tag_errors_total") {
			if value != 0 {
				t.Errorf("%s: %v", name, value)
			}
		}
	}
	top := w.awaitTop(t, "nothing waits", func(top statsd.Top) error { return settled(top) })
	if d := top.Totals.Dropped.Sum(); d != 0 || top.Totals.Kernel != 0 {
		t.Errorf("%d lines dropped, %d datagrams by the kernel: %+v", d, top.Totals.Kernel, top.Totals)
	}
}

// settled returns nil when berth's account closes, with nothing under way.
func settled(top statsd.Top) error {
	if n := top.Totals; n.Waiting > 0 || n.LinesIn != n.LinesOut+n.Dropped.Sum() {
		return fmt.Errorf("in %d, out %d, dropped %+v, waiting %d", n.LinesIn, n.LinesOut, n.Dropped, n.Waiting)
	}
	return nil
}

// TestHostNetwork has a container in the host's network send to the Unix socket,
// whose folder it mounts: it is told by its process.
func TestHostNetwork(t *testing.T) {
	w := newWorld(t)
	u := listen(t, filepath.Join(w.Dir, "u"))
	w.configure(t, "upstream: "+u.path, "container_tags: [service, container_id]")
	w.start(t)
	mount := func(_ *container.Config, h *container.HostConfig) {
		h.Binds = append(h.Binds, filepath.Dir(w.socket())+":/run/statsd")
	}
	const count = 200
	for _, service := range []string{"one", "two"} {
		c := w.StartContainer(t, enginetest.Spec{Name: service, Network: "host", Labels: labels(service), Adjust: mount})
		w.knows(t, c)
		// Slowly enough that the process is there when its first line is read.
		c.Exec(t, "/app", apps.Metrics, "-client", "unix", "-to", "/run/statsd/statsd.sock", "-name", service+".by.socket", "-count", fmt.Sprint(count), "-pause", "1ms", "-once")
		if n := u.await(t, service+".by.socket:1|c", count, "service:"+service, "container_id:"+c.ID); n != count {
			t.Errorf("%s: %d of %d lines have the tags of their container", service, n, count)
		}
		// Over UDP its address is the host's, which is anybody's: no guess.
		c.Exec(t, "/app", apps.Metrics, "-to", "172.17.0.1:8125", "-name", service+".by.udp", "-count", fmt.Sprint(count), "-once")
		if n := u.await(t, service+".by.udp:1|c", count, ""); n != count {
			t.Errorf("%s: %d of %d lines that could be anybody's have no tags", service, n, count)
		}
	}
}

// TestSharedNetwork: of two containers in one network nobody can tell which has
// sent, so that lines get what both have.
func TestSharedNetwork(t *testing.T) {
	w := newWorld(t)
	u := listen(t, filepath.Join(w.Dir, "u"))
	w.configure(t, "upstream: "+u.path, "container_tags: [service, env]")
	w.start(t)
	first := w.StartContainer(t, enginetest.Spec{Name: "first", Labels: labels("first")})
	guest := w.StartContainer(t, enginetest.Spec{Name: "guest", Labels: labels("guest"), Network: "container:" + first.ID})
	w.knows(t, guest)
	guest.Exec(t, "/app", apps.Metrics, "-name", "shared", "-count", "50", "-once")
	if n := u.await(t, "shared:1|c", 50, "env:test"); n != 50 {
		t.Errorf("%d of 50 lines have only what both containers have in common", n)
	}
	guest.Remove(t)
	// The guest is gone for good once its lines cannot be late any more.
	for sent := 1; ; sent++ {
		first.Exec(t, "/app", apps.Metrics, "-name", fmt.Sprintf("alone%d", sent), "-once")
		if u.await(t, fmt.Sprintf("alone%d:1|c", sent), 1, "env:test", "service:first") == 1 {
			break
		}
		if sent == 500 {
			t.Fatal("the first container's lines never are its own")
		}
	}
}

// TestReloadAndRestart: what the kernel has taken for berth is passed on, to the
// last line, while berth changes its mind and is restarted.
func TestReloadAndRestart(t *testing.T) {
	w := newWorld(t)
	u := listen(t, filepath.Join(w.Dir, "u"))
	w.configure(t, "upstream: "+u.path, "container_tags: [service]")
	w.start(t)
	sender := w.startSender(t)
	total := 0
	received := func(more int) { // than there were before
		t.Helper()
		total += more
		u.atLeast(t, "steady:", total)
		total, _ = u.count("steady:")
	}
	received(100)
	for i := range 3 {
		w.configure(t, "upstream: "+u.path, "container_tags: [service]", fmt.Sprintf("tags: ['round:%d']", i))
		w.reload(t)
		received(100)
	}
	w.configure(t, "upstream: "+u.path, "container_tags: [service]")
	for range 2 {
		w.end(t, syscall.SIGTERM)
		w.start(t)
		received(300)
	}
	u.await(t, "steady:1|c", stopSender(t, sender))
	if tagged, _ := u.count("steady:1|c|#service:steady"); tagged == 0 {
		t.Error("no line has the container's tags")
	}
}
