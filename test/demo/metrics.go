package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/collectors/statsd"
	"github.com/berthd/berth/test/apps"
	"github.com/berthd/berth/test/apps/metrics"
)

// receiver stands in for a Datadog agent of this host: it takes what berth sends.
type receiver struct {
	conn *net.UnixConn
	done chan struct{}

	mu    sync.Mutex
	lines []string
}

// metricsSocket is where berth sends metrics.
func (s *stage) metricsSocket() string { return filepath.Join(s.dir, "metrics.sock") }

// receive opens the receiver.
func (s *stage) receive() error {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: s.metricsSocket()})
	if err != nil {
		return fmt.Errorf("receive metrics: %w", err)
	}
	r := &receiver{conn: conn, done: make(chan struct{})}
	s.metrics = r
	go func() {
		defer close(r.done)
		buf := make([]byte, 64<<10)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return // the demo is over
			}
			r.mu.Lock()
			for line := range strings.Lines(string(buf[:n])) {
				r.lines = append(r.lines, strings.TrimSpace(line))
			}
			r.mu.Unlock()
		}
	}()
	return nil
}

func (r *receiver) close() error {
	err := r.conn.Close()
	<-r.done
	return err
}

// find returns the first line of a metric.
func (r *receiver) find(name string) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.lines, func(line string) bool { return strings.HasPrefix(line, name+":") })
	if i < 0 {
		return "", false
	}
	return r.lines[i], true
}

// serviceLabels are a service's name and environment, as Datadog's unified service
// tagging has them, besides further labels.
func serviceLabels(service string, more map[string]string) map[string]string {
	labels := map[string]string{"com.datadoghq.tags.service": service, "com.datadoghq.tags.env": "demo"}
	for k, v := range more {
		labels[k] = v
	}
	return labels
}

// tell shows which metrics the services have sent since they began to be asked, and
// what berth has added.
func (s *stage) tell(ctx context.Context) error {
	s.title("Their metrics say who sent them")
	if _, err := s.ask(ctx, http.StatusOK); err != nil {
		return err
	}
	at := netip.AddrPortFrom(s.gateway, metrics.Port)
	var lines []string
	for _, service := range []string{apps.Calc, apps.Time, apps.Portal} {
		err := s.until(ctx, "a metric of "+service+" arrives", func() error {
			if line, ok := s.metrics.find(service + ".requests"); ok {
				lines = append(lines, line)
				return nil
			}
			return s.receives(ctx, at)
		})
		if err != nil {
			return err
		}
		if err := hasTags(lines[len(lines)-1], "service:"+service, "env:demo", "image_name:berth-demo/"+service); err != nil {
			return err
		}
	}
	s.say("They count requests, and send to %s: calc and time one bare datagram for each,", at)
	s.say("the portal by datadog-go with its defaults. What arrives at the host's upstream:")
	for _, line := range lines {
		s.show("%s", shorten(line))
	}
	out, err := s.berth(ctx, "statsd", "top", "--once")
	if err != nil {
		return err
	}
	for _, service := range []string{apps.Calc, apps.Time, apps.Portal} {
		if !strings.Contains(out, s.containerName(service)) {
			return fmt.Errorf("not so: berth statsd top names all three: it says\n%s", out)
		}
	}
	s.say("berth statsd top:")
	s.quote(out)
	return nil
}

// receives returns an error that says why nothing has arrived. Berth tries again when
// somebody else has the port, as a berth that is only about to end.
func (s *stage) receives(ctx context.Context, at netip.AddrPort) error {
	var st admin.Status
	if err := admin.NewClient(s.socket()).Get(ctx, "/v1/status", nil, &st); err != nil {
		return err
	}
	for _, c := range st.Conditions {
		if c.Component == statsd.Name && strings.Contains(c.Why, at.String()) {
			return fmt.Errorf("containers would send metrics to %s: %s", at, c.Why)
		}
	}
	return errors.New("none has")
}

// hasTags returns an error unless a line has these tags, at least.
func hasTags(line string, want ...string) error {
	for field := range strings.SplitSeq(line, "|") {
		if list, ok := strings.CutPrefix(field, "#"); ok {
			got := strings.Split(list, ",")
			if !slices.ContainsFunc(want, func(tag string) bool { return !slices.Contains(got, tag) }) {
				return nil
			}
		}
	}
	return fmt.Errorf("not so: %q has the tags %q", line, want)
}

// shorten cuts the ID of its container, which datadog-go adds, to a length that
// people read.
func shorten(line string) string {
	head, id, ok := strings.Cut(line, "|c:")
	if !ok || len(id) <= 12 {
		return line
	}
	return head + "|c:" + id[:12] + "…"
}
