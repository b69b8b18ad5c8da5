package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/sinks/dnsserver"
)

// The zone: services, each with targets among the hosts.
const (
	zone     = "bench.test."
	services = 200
	targets  = 8
	hosts    = 50
)

func serviceName(i int) string { return fmt.Sprintf("_service%03d._tcp.%s", i, zone) }

func hostName(i int) string { return fmt.Sprintf("host%02d.%s", i%hosts, zone) }

// records returns the zone's records.
func records() agent.RecordSet {
	var rs []agent.Record
	for i := range services {
		for j := range targets {
			rs = append(rs, agent.Record{
				Name: serviceName(i), Type: agent.TypeSRV, TTL: 10,
				Priority: 1, Weight: 1, Port: uint16(32768 + i), Target: hostName(i + 5*j),
			})
		}
	}
	for i := range hosts {
		rs = append(rs, agent.Record{
			Name: hostName(i), Type: agent.TypeA, TTL: 10,
			Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}),
		})
	}
	return agent.NewRecordSet(zone, agent.Node{ID: "host00"}, rs, false)
}

// zoneFile returns the zone as a file for the other servers.
func zoneFile() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s 5 IN SOA %s hostmaster.%s 1 60 10 86400 5\n", zone, hostName(0), zone)
	fmt.Fprintf(&b, "%s 5 IN NS %s\n", zone, hostName(0))
	for _, r := range records().Records {
		fmt.Fprintln(&b, r)
	}
	return b.String()
}

// questions returns the input of dnsperf: 4 of 5 are SRV, in a fixed random
// order.
func questions() string {
	var lines []string
	for i := range services {
		for range 4 {
			lines = append(lines, serviceName(i)+" SRV")
		}
		lines = append(lines, hostName(i)+" A")
	}
	rng := rand.New(rand.NewPCG(1, 1))
	rng.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	return strings.Join(lines, "\n") + "\n"
}

// serveBerth serves the zone with berth's own server until ctx ends.
func serveBerth(ctx context.Context, address string) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("parse address: %w", err)
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	cfg := dnsserver.Config{Listen: []netip.Addr{at.Addr()}, Port: at.Port()}
	s, err := dnsserver.New(cfg, agent.Env{Log: log, Health: agent.NewHealth(log)}, agent.NewStore())
	if err != nil {
		return err
	}
	var desired agent.Records
	desired.Publish(records())
	feed := desired.Subscribe()
	defer feed.Close()
	return s.Run(ctx, feed)
}
