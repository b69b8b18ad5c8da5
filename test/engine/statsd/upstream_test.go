package statsd

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/berthd/berth/collectors/statsd"
	"github.com/berthd/berth/test/apps"
	"github.com/berthd/berth/test/engine/enginetest"
)

// TestUpstream: the upstream is not there when berth starts; it is killed while
// lines come; another one takes its path while the first still has it open. What
// berth was told is either at an upstream or on its account.
func TestUpstream(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.Dir, "u")
	w.configure(t, "upstream: "+path, "container_tags: [service]")
	w.start(t)
	c := w.StartContainer(t, enginetest.Spec{Name: "shop", Labels: labels("shop")})
	w.knows(t, c)

	// Absent: the lines wait.
	c.Exec(t, "/app", apps.Metrics, "-name", "early", "-count", "500", "-once")
	w.awaitTop(t, "500 lines wait", func(top statsd.Top) error {
		if top.Totals.Waiting != 500 || top.Totals.LinesOut != 0 {
			return fmt.Errorf("%+v", top.Totals)
		}
		return nil
	})
	first := listen(t, path)
	if n := first.await(t, "early:1|c", 500, "service:shop"); n != 500 {
		t.Errorf("%d of 500 lines that waited have their tags", n)
	}

	// Killed while lines come.
	sender := w.startSender(t)
	first.atLeast(t, "steady:", 200)
	first.close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	w.awaitTop(t, "lines wait again", func(top statsd.Top) error {
		if top.Totals.Waiting == 0 {
			return fmt.Errorf("%+v", top.Totals)
		}
		return nil
	})
	second := listen(t, path)
	second.atLeast(t, "steady:", 200)

	// Replaced: nobody tells who sends to the old one, which would go on reading.
	third := listen(t, path)
	third.atLeast(t, "steady:", 200)
	count := stopSender(t, sender)
	top := w.awaitTop(t, "nothing waits", settled)
	if d := top.Totals.Dropped; d.Sum() != d.Send || top.Totals.Kernel != 0 {
		t.Errorf("lost: %+v, %d datagrams by the kernel; the buffer had room", d, top.Totals.Kernel)
	}
	got := 0
	for _, u := range []*upstream{first, second, third} {
		all, _ := u.count("steady:")
		got += all
	}
	total, lost := int(top.Totals.LinesIn), int(top.Totals.Dropped.Sum())
	if total != 500+count {
		t.Errorf("berth counts %d lines, %d were sent", total, 500+count)
	}
	// The first upstream died with what it had not read: up to eleven datagrams
	// of 8 KiB.
	if unread := count - got - lost; unread < 0 || unread > 11*8192/len("steady:1|c\n") {
		t.Errorf("%d lines arrived and %d are on berth's account, of %d", got, lost, count)
	} else {
		t.Logf("%d lines were in the queue of the upstream that was killed, and %d on their way", unread, lost)
	}
}

// TestFlood has one container send as fast as it can, from a network of its own: the
// others lose nothing.
func TestFlood(t *testing.T) {
	w := newWorld(t)
	u := listen(t, filepath.Join(w.Dir, "u"))
	w.configure(t, "upstream: "+u.path, "container_tags: [service]", "rate_limit: 2000")
	w.start(t)
	quiet := w.StartContainer(t, enginetest.Spec{Name: "quiet", Labels: labels("quiet")})
	w.knows(t, quiet)
	flood := w.StartContainer(t, enginetest.Spec{
		Name: "flood", Args: []string{apps.Metrics, "-name", "flood", "-count", "0"}, Network: w.CreateNetwork(t, "flood", ""),
		Labels: labels("flood"), Hurry: true,
	})
	w.knows(t, flood)
	for i := range 5 {
		quiet.Exec(t, "/app", apps.Metrics, "-name", fmt.Sprintf("quiet%d", i), "-count", "100", "-pause", "100us", "-once")
		name := fmt.Sprintf("quiet%d:1|c", i)
		if n := u.await(t, name, 100, "service:quiet"); n != 100 {
			t.Errorf("%d of 100 lines of %s have their tags", n, name)
		}
	}
	stopSender(t, flood)
	top := w.awaitTop(t, "nothing waits", settled)
	for _, s := range top.Senders {
		switch s.Container {
		case flood.Name:
			if s.RateLimited == 0 {
				t.Errorf("of %d lines of the flood, none was over its limit", s.Lines)
			}
		case quiet.Name:
			if s.Lines != 500 || s.Dropped() != 0 {
				t.Errorf("the quiet one: %+v", s)
			}
		}
	}
}
