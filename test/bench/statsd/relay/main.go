// Command relay is berth's statsd relay for the benchmark: the collector and the
// sink that berth runs, wired as berth wires them, on a snapshot that is made up.
// There is no engine, so that nothing but the relay is measured.
//
//	relay -listen 127.0.0.1:8125 -upstream 127.0.0.1:9125 -interface lo -containers 127.0.1.1,127.0.1.2
//
// For each line on its standard input it writes one to standard output, a JSON
// object with what its allocations come to. It ends on SIGTERM, and with its
// standard input.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/collectors/statsd"
	"github.com/berthd/berth/sinks/dogstatsd"
)

// Counts are what the program tells of itself.
type Counts struct {
	Mallocs uint64 // objects that were ever allocated
}

func main() {
	listen := flag.String("listen", "127.0.0.1:8125", "the gateway's `address` and the port")
	upstream := flag.String("upstream", "127.0.0.1:9125", "host:port, or unix:`path`")
	device := flag.String("interface", "lo", "the interface that has the gateway's address")
	containers := flag.String("containers", "127.0.1.1", "`addresses` of the containers")
	networks := flag.Int("networks", 30, "networks to receive on: the one above, and others at 127.0.2.1 and on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *listen, *upstream, *device, *containers, *networks); err != nil {
		fmt.Fprintln(os.Stderr, "relay:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen, upstream, device, containers string, networks int) error {
	at, err := netip.ParseAddrPort(listen)
	if err != nil {
		return err
	}
	snap, err := snapshot(at.Addr(), device, strings.Split(containers, ","), networks)
	if err != nil {
		return err
	}
	cfg := statsd.DefaultConfig()
	cfg.Port, cfg.Socket = at.Port(), ""
	cfg.Upstream = strings.TrimPrefix(upstream, "unix:")
	cfg.ContainerTags = append(cfg.ContainerTags, "image_tag")
	cfg.Tags = []string{"region:eu-west-1", "account:shop-production"}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	env := agent.Env{Log: log, Health: agent.NewHealth(log)}
	sink, err := dogstatsd.NewLines(dogstatsd.LineConfig{
		Address: cfg.Upstream, Payload: int(cfg.Payload.Bytes()), Buffer: cfg.Buffer.Bytes(), Segment: cfg.Segmentation,
	}, env)
	if err != nil {
		return err
	}
	relay, err := statsd.New(cfg, env, sink)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		tell()
	}()
	store := agent.NewStore()
	store.Publish(snap)
	feed := store.Subscribe()
	defer feed.Close()
	if err := relay.Run(ctx, feed); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// tell answers until standard input ends.
func tell() {
	lines := bufio.NewScanner(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var mem runtime.MemStats
		runtime.ReadMemStats(&mem)
		if out.Encode(Counts{mem.Mallocs}) != nil {
			return
		}
	}
}

// snapshot is a host with containers on one of its networks.
func snapshot(gateway netip.Addr, device string, addresses []string, networks int) (*agent.Snapshot, error) {
	const ours = "checkout"
	s := &agent.Snapshot{Seq: 1, At: time.Now(), Connected: true, Complete: true, EngineID: "bench"}
	s.Networks = append(s.Networks, agent.Network{
		ID: ours, Name: ours, Driver: "bridge", Bridge: device, Gateways: []netip.Addr{gateway},
	})
	other := netip.AddrFrom4([4]byte{127, 0, 2, 1})
	for i := 1; i < networks; i++ {
		name := fmt.Sprintf("other-%02d", i)
		s.Networks = append(s.Networks, agent.Network{
			ID: name, Name: name, Driver: "bridge", Bridge: "lo", Gateways: []netip.Addr{other},
		})
		other = other.Next()
	}
	for i, text := range addresses {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return nil, err
		}
		s.Containers = append(s.Containers, &agent.Container{
			ID: fmt.Sprintf("%064x", i+1), Name: fmt.Sprintf("checkout-%02d", i), State: agent.StateRunning, PID: 1,
			Image: "registry.example.com/shop/checkout:1.42.0",
			Labels: map[string]string{
				"com.datadoghq.tags.service": fmt.Sprintf("checkout-%02d", i),
				"com.datadoghq.tags.env":     "production",
				"com.datadoghq.tags.version": "1.42.0",
				"com.docker.compose.project": "shop",
			},
			StartedAt: time.Now(), NetworkMode: ours,
			Endpoints: []agent.Endpoint{{Network: ours, NetworkID: ours, IPv4: addr}},
		})
	}
	return s, nil
}
