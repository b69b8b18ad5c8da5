package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// containers is how many senders there are, each with an address of its own.
const containers = 8

// place is where senders and relays meet.
type place interface {
	name() string
	relay() netip.Addr     // where relays listen
	device() string        // the interface that has it
	sources() []netip.Addr // the senders
	generator(relay netip.AddrPort, perDatagram int) (*generator, error)
	close() error
}

// loopback is 127.0.0.1, with senders that have addresses of their own there.
type loopback struct{}

func (loopback) name() string      { return "loopback" }
func (loopback) relay() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 1}) }
func (loopback) device() string    { return "lo" }
func (loopback) close() error      { return nil }

func (loopback) sources() []netip.Addr {
	return addresses(netip.AddrFrom4([4]byte{127, 0, 1, 1}), containers)
}

func (l loopback) generator(relay netip.AddrPort, perDatagram int) (*generator, error) {
	return newGenerator(l.sources(), relay, perDatagram, func(_ int, f func() error) error { return f() })
}

// bridge is a bridge as an engine makes one, with a network namespace behind a
// veth pair for each sender.
type bridge struct {
	id      string
	gateway netip.Prefix
	made    []string // commands that undo
}

// newBridge makes it. It needs root and iproute2.
func newBridge(ctx context.Context) (b *bridge, err error) {
	b = &bridge{id: fmt.Sprintf("bs%d", os.Getpid())}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	if b.gateway, err = freeSubnet(ctx); err != nil {
		return nil, err
	}
	at := b.device()
	b.made = append(b.made, "link del "+at)
	for _, args := range []string{
		"link add " + at + " type bridge",
		"addr add " + b.gateway.String() + " dev " + at,
		"link set " + at + " up",
	} {
		if err := ip(ctx, args); err != nil {
			return nil, err
		}
	}
	for i, addr := range b.sources() {
		ns, veth := b.namespace(i), fmt.Sprintf("%sv%d", b.id, i)
		b.made = append(b.made, "netns del "+ns)
		for _, args := range []string{
			"netns add " + ns,
			"link add " + veth + " type veth peer name eth0 netns " + ns,
			"link set " + veth + " master " + at,
			"link set " + veth + " up",
			fmt.Sprintf("-n %s addr add %s/%d dev eth0", ns, addr, b.gateway.Bits()),
			"-n " + ns + " link set eth0 up",
		} {
			if err := ip(ctx, args); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

func (b *bridge) name() string           { return "bridge" }
func (b *bridge) relay() netip.Addr      { return b.gateway.Addr() }
func (b *bridge) device() string         { return b.id }
func (b *bridge) namespace(i int) string { return fmt.Sprintf("%s-%d", b.id, i) }
func (b *bridge) sources() []netip.Addr  { return addresses(b.relay().Next(), containers) }

func (b *bridge) generator(relay netip.AddrPort, perDatagram int) (*generator, error) {
	return newGenerator(b.sources(), relay, perDatagram, b.inside)
}

// inside runs f on a thread that is in a sender's namespace. A socket that it
// opens stays there.
func (b *bridge) inside(i int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		ns, err := os.Open("/run/netns/" + b.namespace(i))
		if err != nil {
			done <- err
			return
		}
		defer ns.Close()
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", b.namespace(i), err)
			return
		}
		done <- f()
	}()
	return <-done
}

// close removes what newBridge made.
func (b *bridge) close() error {
	var errs []error
	for i := len(b.made) - 1; i >= 0; i-- {
		errs = append(errs, ip(context.Background(), b.made[i]))
	}
	b.made = nil
	return errors.Join(errs...)
}

// freeSubnet returns the gateway of a private subnet that this machine has no
// route to.
func freeSubnet(ctx context.Context) (netip.Prefix, error) {
	out, err := exec.CommandContext(ctx, "ip", "-4", "route", "show", "table", "all").Output()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("list routes: %w", err)
	}
	var taken []netip.Prefix
	for _, field := range strings.Fields(string(out)) {
		if p, err := netip.ParsePrefix(field); err == nil {
			taken = append(taken, p)
		}
	}
	for third := range 256 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, byte(third), 1}), 24)
		free := true
		for _, t := range taken {
			free = free && !t.Overlaps(p)
		}
		if free {
			return p, nil
		}
	}
	return netip.Prefix{}, errors.New("find a free subnet: all of 10.213.0.0/16 is in use")
}

// ip runs iproute2's command.
func ip(ctx context.Context, args string) error {
	if out, err := exec.CommandContext(ctx, "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, strings.TrimSpace(string(out)))
	}
	return nil
}
