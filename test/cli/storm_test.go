package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/test/fakedocker"
)

// reloads is how often the storm reloads.
const reloads = 100

// TestReloadStorm reloads a changed configuration a hundred times, now and then
// a wrong one, while containers come and go and others ask for names. The name
// of a container that stays is answered at every moment, and nothing is left
// over at the end: no goroutine, no record.
func TestReloadStorm(t *testing.T) {
	d := startStormy(t)
	before := d.goroutines(t)

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var others sync.WaitGroup
	others.Go(func() { d.comeAndGo(ctx) })
	var asked atomic.Int64
	for range 2 {
		others.Go(func() { d.keepAsking(ctx, t, &asked) })
	}
	for i := range reloads {
		ttl, broken := 5+i%7, i%10 == 9
		text := fmt.Sprintf("discovery:\n  ttl: %ds\n", ttl)
		if broken {
			text = "discovery:\n  ttl: soon\n"
		}
		d.configure(t, text)
		var res admin.ReloadResult
		err := d.client.Post(t.Context(), "/v1/reload", &res)
		if said, refused := errors.AsType[*admin.Error](err); broken != (refused && said.Code == 422) {
			t.Fatalf("reload %d: got %v", i, err)
		}
	}
	d.configure(t, "discovery:\n  ttl: 17s\n")
	if err := d.client.Post(t.Context(), "/v1/reload", new(admin.ReloadResult)); err != nil {
		t.Fatal(err)
	}
	stop()
	others.Wait()
	if asked.Load() == 0 {
		t.Error("nobody asked anything")
	}
	t.Logf("%d reloads, %d questions", reloads+1, asked.Load())

	// The passing containers are gone, and the last settings hold.
	err := poll(func() error {
		if got := d.ask("_pass._tcp.berth.internal."); got != "NXDOMAIN" {
			return fmt.Errorf("_pass._tcp: got %s, want NXDOMAIN", got)
		}
		if got, want := d.ask("_stay._tcp.berth.internal."), "17 1 1 80 host-1.berth.internal."; got != want {
			return fmt.Errorf("_stay._tcp: got %s, want %s", got, want)
		}
		var st admin.Status
		if err := d.client.Get(t.Context(), "/v1/status", nil, &st); err != nil {
			return err
		}
		if !st.Ready || len(st.Conditions) > 0 {
			return fmt.Errorf("not ready: %q, conditions %v", st.NotReady, st.Conditions)
		}
		for _, c := range st.Components {
			if c.State != "running" || c.Restarts > 0 {
				return fmt.Errorf("component %s: %s, %d restarts: %s", c.Name, c.State, c.Restarts, c.Err)
			}
		}
		if after := d.goroutines(t); after > before {
			return fmt.Errorf("%d goroutines, %d before", after, before)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// stormy is a daemon on a fake engine.
type stormy struct {
	engine *fakedocker.Engine
	client *admin.Client
	dir    string
	at     string // of its DNS server
}

func startStormy(t *testing.T) *stormy {
	t.Helper()
	dir := t.TempDir()
	d := &stormy{
		dir:    dir,
		engine: fakedocker.New(filepath.Join(dir, "docker.sock")),
		client: admin.NewClient(filepath.Join(dir, "berth.sock")),
	}
	if err := d.engine.Up(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.engine.Down)
	d.engine.Run(spec("stay", 80))
	if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(baseConfig, "WORK", dir)
	text = strings.Replace(text, "admin:\n", "admin:\n  pprof: true\n", 1)
	if err := os.WriteFile(filepath.Join(dir, "berth.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "berth"), "run", "--config", filepath.Join(dir, "berth.yaml"))
	cmd.Stderr = log
	cmd.Env = append(os.Environ(), "GORACE=halt_on_error=1 exitcode=66", "NOTIFY_SOCKET=", "JOURNAL_STREAM=")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil || t.Failed() {
			said, _ := os.ReadFile(log.Name())
			t.Errorf("berth run: %v\n%s", err, said[max(0, len(said)-10_000):])
		}
	})
	err = poll(func() error {
		var st admin.Status
		if err := d.client.Get(t.Context(), "/v1/status", nil, &st); err != nil {
			return err
		}
		for _, c := range st.Components {
			if m := serving.FindStringSubmatch(c.Summary); m != nil && strings.Contains(c.Summary, "172.17.0.1") {
				d.at = m[1]
				if got := d.ask("_stay._tcp.berth.internal."); !strings.HasSuffix(got, "host-1.berth.internal.") {
					return errors.New(got)
				}
				return nil
			}
		}
		return errors.New("the DNS server does not listen")
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// spec is a container with a name in DNS.
func spec(name string, port int) fakedocker.Spec {
	return fakedocker.Spec{
		Name: name, Image: name + ":1", Publish: []string{fmt.Sprintf("%d:80", port)},
		Labels: map[string]string{"SERVICE_80_NAME": name},
	}
}

// configure writes what a reload will find, in one step.
func (d *stormy) configure(t *testing.T, text string) {
	t.Helper()
	next := filepath.Join(d.dir, "next")
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(d.dir, "conf.d", "10.yaml")); err != nil {
		t.Fatal(err)
	}
}

// comeAndGo makes containers and removes them until ctx ends.
func (d *stormy) comeAndGo(ctx context.Context) {
	for ctx.Err() == nil {
		d.engine.Run(spec("pass", 81))
		pause(ctx)
		d.engine.Stop("pass")
		d.engine.Remove("pass")
		pause(ctx)
	}
}

// pause bounds the rate of a loop.
func pause(ctx context.Context) {
	select {
	case <-time.After(5 * time.Millisecond):
	case <-ctx.Done():
	}
}

// keepAsking asks for the name of the container that stays, until ctx ends.
func (d *stormy) keepAsking(ctx context.Context, t *testing.T, asked *atomic.Int64) {
	for ctx.Err() == nil {
		if got := d.ask("_stay._tcp.berth.internal."); !strings.HasSuffix(got, " 1 1 80 host-1.berth.internal.") {
			t.Errorf("question %d: got %s", asked.Load(), got)
			return
		}
		asked.Add(1)
		pause(ctx)
	}
}

// ask asks over UDP, like a resolver up to three times, and returns the answers
// with their times to live, or what went wrong.
func (d *stormy) ask(name string) string {
	q := new(dns.Msg).SetQuestion(name, dns.TypeSRV)
	var answer *dns.Msg
	var err error
	for range 3 {
		if answer, _, err = (&dns.Client{Timeout: 2 * time.Second}).Exchange(q, d.at); err == nil {
			break
		}
	}
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, rr := range answer.Answer {
		fields := strings.Fields(rr.String())
		out = append(out, fields[1]+" "+strings.Join(fields[4:], " "))
	}
	if len(out) == 0 {
		return dns.RcodeToString[answer.Rcode]
	}
	return strings.Join(out, "\n")
}

var profileHead = regexp.MustCompile(`goroutine profile: total (\d+)`)

// goroutines returns how many the daemon has while nobody else asks it.
func (d *stormy) goroutines(t *testing.T) int {
	t.Helper()
	raw, err := d.client.Raw(t.Context(), "/debug/pprof/goroutine", map[string][]string{"debug": {"1"}})
	if err != nil {
		t.Fatal(err)
	}
	m := profileHead.FindSubmatch(raw)
	if m == nil {
		t.Fatalf("this is no profile: %.200s", raw)
	}
	n, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
