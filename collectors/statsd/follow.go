package statsd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
)

// follower keeps sockets and table as the snapshots want them. It belongs to one
// goroutine.
type follower struct {
	*Statsd
	receiver *receiver
	port     agent.LinePort
	opener   opener
	loop     netip.AddrPort // the upstream, where it is no name
	began    time.Time
	known    bool // the containers are, or have been waited for

	open    map[string]*socket // by the address that was asked for
	failed  map[string]*failure
	wanted  []netip.Addr // by the last snapshot
	loops   []string     // addresses that are the upstream's
	closed  uint64       // drops of closed sockets
	rebuild time.Time    // when the table changes although nothing else does

	ticked  time.Time
	drops   uint64
	dropped time.Time // when the kernel dropped something last
}

// failure is a socket that cannot be opened.
type failure struct {
	err   error
	pause time.Duration
	next  time.Time // of the next try
}

func newFollower(s *Statsd, r *receiver, port agent.LinePort) *follower {
	f := &follower{
		Statsd: s, receiver: r, port: port,
		opener: opener{s.sockets, int(s.cfg.ReceiveBuffer.Bytes())},
		open:   make(map[string]*socket), failed: make(map[string]*failure),
		ticked: time.Now(), began: time.Now(),
	}
	f.loop, _, _ = parseUpstream(s.cfg.Upstream)
	return f
}

func (f *follower) run(ctx context.Context, feed agent.Feed, ended <-chan error) error {
	wake, seconds := time.NewTimer(0), time.NewTicker(tick)
	defer wake.Stop()
	defer seconds.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			return fmt.Errorf("receive: %w", err)
		case now := <-seconds.C:
			f.measure(now)
			continue
		case <-feed.Changed():
		case <-wake.C:
		}
		wake.Reset(f.follow(ctx, feed.Snapshot()))
	}
}

// follow takes over a snapshot, and returns when to be called again at the
// latest.
func (f *follower) follow(ctx context.Context, snap *agent.Snapshot) time.Duration {
	now := time.Now()
	var t *table
	t, f.rebuild = f.registrar.build(snap, interfaces(), now)
	f.table.Store(t)
	next := maxRetry
	if wait := beginAfter - now.Sub(f.began); !snap.Complete && wait > 0 && !f.known {
		next = wait
	} else { // only now, as lines may be waiting
		f.known = true
		f.listen(ctx, snap)
	}
	f.show(snap)
	if !f.rebuild.IsZero() {
		next = min(next, time.Until(f.rebuild))
	}
	for _, fail := range f.failed {
		next = min(next, time.Until(fail.next))
	}
	return max(next, time.Millisecond)
}

// interfaces returns the numbers of the host's interfaces by their names.
func interfaces() map[string]uint32 {
	list, err := net.Interfaces()
	if err != nil {
		return nil // any interface will do, then
	}
	indexes := make(map[string]uint32, len(list))
	for _, i := range list {
		indexes[i.Name] = uint32(i.Index)
	}
	return indexes
}

// addresses returns where to receive over UDP, sorted. While the snapshot is not
// the whole truth, a network that is missing from it is no reason to stop.
func (f *follower) addresses(snap *agent.Snapshot) []netip.Addr {
	var addrs []netip.Addr
	for _, a := range slices.Concat(f.cfg.Listen, snap.Bridges()) {
		if bindable(a) == nil { // a bridge may have public addresses, too
			addrs = append(addrs, a.Unmap())
		}
	}
	if !snap.Complete {
		addrs = append(addrs, f.wanted...)
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// listen opens the sockets that are wanted and not open, and closes those that
// are not wanted.
func (f *follower) listen(ctx context.Context, snap *agent.Snapshot) {
	f.wanted = f.addresses(snap)
	wanted := make(map[string]func() (*socket, error))
	f.loops = nil
	for _, a := range f.wanted {
		at := netip.AddrPortFrom(a, f.cfg.Port)
		if at == f.loop {
			f.loops = append(f.loops, at.String())
			continue
		}
		wanted[at.String()] = func() (*socket, error) { return f.opener.udp(ctx, at) }
	}
	if f.cfg.Socket != "" {
		wanted[f.cfg.Socket] = func() (*socket, error) { return f.opener.unixgram(ctx, f.cfg.Socket) }
	}
	changed := false
	for address, s := range f.open {
		if wanted[address] == nil {
			f.closed += s.drops()
			delete(f.open, address)
			changed = true
		}
	}
	maps.DeleteFunc(f.failed, func(address string, _ *failure) bool { return wanted[address] == nil })
	for address, open := range wanted {
		if fail := f.failed[address]; f.open[address] != nil || fail != nil && time.Now().Before(fail.next) {
			continue
		}
		s, err := open()
		if err != nil {
			f.fail(address, err)
			continue
		}
		delete(f.failed, address)
		f.open[address] = s
		changed = true
	}
	if changed {
		f.receiver.read(slices.Collect(maps.Values(f.open)))
	}
	// Also what a configuration before this one listened on.
	f.sockets.Retain(func(_, address string) bool { return wanted[address] != nil })
	f.report()
}

func (f *follower) fail(address string, err error) {
	fail := f.failed[address]
	if fail == nil {
		fail = &failure{pause: minRetry / 2}
		f.failed[address] = fail
	}
	fail.err = err
	fail.pause = min(2*fail.pause, maxRetry)
	fail.next = time.Now().Add(fail.pause)
}

// report tells what cannot be received, and why.
func (f *follower) report() {
	var errs []string
	for _, address := range slices.Sorted(maps.Keys(f.failed)) {
		errs = append(errs, f.failed[address].err.Error())
	}
	hint := "the other addresses are received on; see whether another program has the port (ss -ulpn), such as a Datadog agent with dogstatsd_non_local_traffic, or change statsd.port"
	if f.failed[f.cfg.Socket] != nil && len(errs) == 1 {
		hint = "the folder must be there and berth's to write to: systemd-tmpfiles --create, or set statsd.socket"
	}
	for _, at := range f.loops {
		errs = append(errs, fmt.Sprintf("not listening on %s: it is the upstream", at))
		hint = "give the relay another statsd.port, or another statsd.upstream"
	}
	if len(errs) > 0 {
		f.health.Set(condListen, errors.New(strings.Join(errs, "; ")), hint)
	} else {
		f.health.Set(condListen, nil, "")
	}
	least := 0
	for _, s := range f.open {
		if !s.unix && (least == 0 || s.buffer < least) {
			least = s.buffer
		}
	}
	if want := int(f.cfg.ReceiveBuffer.Bytes()); least > 0 && least < want {
		f.health.Set(condBuffer, fmt.Errorf("the kernel holds %s for each socket, not %s: CAP_NET_ADMIN is missing", config.Size(least), f.cfg.ReceiveBuffer),
			"give berth the capability, raise net.core.rmem_max (see sysctl-berth-statsd.conf), or lower statsd.receive_buffer")
	} else {
		f.health.Set(condBuffer, nil, "")
	}
}

// show makes all of it visible.
func (f *follower) show(snap *agent.Snapshot) {
	v := &view{snapshot: snap, closed: f.closed, port: f.port}
	for _, address := range slices.Sorted(maps.Keys(f.open)) {
		v.sockets = append(v.sockets, f.open[address])
	}
	v.senders, v.live = f.registrar.senders(false), f.registrar.senders(true)
	f.view.Store(v)
}

// clear takes everything back at the end. What was counted stays visible.
func (f *follower) clear() {
	for _, cond := range []string{condListen, condBuffer, condReceive} {
		f.health.Set(cond, nil, "")
	}
}

// rateOver is the time over which rates are smoothed: clients send every few
// seconds, many of them every ten.
const rateOver = 10 * time.Second

// measure computes rates, and looks for what the kernel dropped.
func (f *follower) measure(now time.Time) {
	v := f.view.Load()
	passed := now.Sub(f.ticked)
	f.ticked = now
	if passed > 0 {
		weight := 1 - math.Exp(-passed.Seconds()/rateOver.Seconds())
		for _, o := range v.senders {
			o.account.measure(passed, weight)
		}
	}
	drops := v.drops()
	if drops > f.drops {
		f.dropped = now
		f.health.Set(condReceive, fmt.Errorf("the kernel dropped %d datagrams in the last second, for which a socket had no room", drops-f.drops),
			"raise statsd.receive_buffer, or find who sends most: berth statsd top")
	} else if now.Sub(f.dropped) > calm {
		f.health.Set(condReceive, nil, "")
	}
	f.drops = drops
}

// measure adds what came since the last call to the rate.
func (a *account) measure(passed time.Duration, weight float64) {
	lines := a.lines.Load()
	rate := math.Float64frombits(a.rate.Load())
	rate += (float64(lines-a.seen)/passed.Seconds() - rate) * weight
	a.seen = lines
	a.rate.Store(math.Float64bits(rate))
}
