package docker

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/network"
	"golang.org/x/sys/unix"

	"github.com/berthd/berth/agent"
)

func toEvent(m events.Message) agent.Event {
	ev := agent.Event{
		Time:   time.Unix(0, m.TimeNano),
		Type:   string(m.Type),
		Action: string(m.Action),
		ID:     m.Actor.ID,
	}
	switch {
	case m.Type == events.NetworkEventType:
		ev.Container = m.Actor.Attributes["container"]
	case m.Action == events.ActionKill:
		ev.Signal = signalNumber(m.Actor.Attributes["signal"])
	case m.Action == events.ActionDie:
		ev.ExitCode, _ = strconv.Atoi(m.Actor.Attributes["exitCode"])
	}
	return ev
}

// toContainer takes what berth needs of an inspect.
func toContainer(in *container.InspectResponse, env []string) (*agent.Container, error) {
	if in.ContainerJSONBase == nil || in.State == nil || in.Config == nil || in.HostConfig == nil || in.ID == "" {
		return nil, fmt.Errorf("the engine's answer lacks a part")
	}
	c := &agent.Container{
		ID:          in.ID,
		Name:        strings.TrimPrefix(in.Name, "/"),
		Image:       in.Config.Image,
		ImageID:     in.Image,
		Labels:      maps.Clone(in.Config.Labels),
		Env:         allowedEnv(in.Config.Env, env),
		State:       agent.State(in.State.Status),
		CreatedAt:   toTime(in.Created),
		StartedAt:   toTime(in.State.StartedAt),
		FinishedAt:  toTime(in.State.FinishedAt),
		ExitCode:    in.State.ExitCode,
		PID:         in.State.Pid,
		StopSignal:  signalNumber(cmp.Or(in.Config.StopSignal, "SIGTERM")),
		StopTimeout: 10 * time.Second, // the engine's default
		NetworkMode: string(in.HostConfig.NetworkMode),
		Resources: agent.Resources{
			NanoCPUs:     in.HostConfig.NanoCPUs,
			CPUQuota:     in.HostConfig.CPUQuota,
			CPUPeriod:    in.HostConfig.CPUPeriod,
			CPUShares:    in.HostConfig.CPUShares,
			Cpuset:       in.HostConfig.CpusetCpus,
			Memory:       in.HostConfig.Memory,
			MemoryLow:    in.HostConfig.MemoryReservation,
			CgroupParent: in.HostConfig.CgroupParent,
		},
		OOMKilled: in.State.OOMKilled,
	}
	for _, m := range in.Mounts {
		if m.Source != "" {
			c.Mounts = append(c.Mounts, m.Source)
		}
	}
	slices.Sort(c.Mounts)
	if in.Config.StopTimeout != nil {
		c.StopTimeout = time.Duration(*in.Config.StopTimeout) * time.Second
	}
	if in.State.Health != nil && in.State.Health.Status != container.NoHealthcheck {
		c.Health = agent.HealthStatus(in.State.Health.Status)
	}
	if in.NetworkSettings != nil {
		c.Endpoints = toEndpoints(in.NetworkSettings.Networks)
		for p, bindings := range in.NetworkSettings.Ports {
			if len(bindings) == 0 {
				c.Ports = append(c.Ports, agent.Port{Container: uint16(p.Int()), Proto: p.Proto()})
			}
			for _, b := range bindings {
				port, _ := strconv.ParseUint(b.HostPort, 10, 16)
				c.Ports = append(c.Ports, agent.Port{
					Container: uint16(p.Int()), Proto: p.Proto(), Host: hostAddr(b.HostIP, uint16(port)),
				})
			}
		}
		sortPorts(c.Ports)
	}
	return c, nil
}

func toRow(in *container.Summary) agent.Row {
	row := agent.Row{ID: in.ID, State: agent.State(in.State)}
	for _, name := range in.Names {
		// Links give a container further names, below that of the other.
		if n := strings.TrimPrefix(name, "/"); !strings.Contains(n, "/") {
			row.Name = n
		}
	}
	row.Health, row.AgeMin, row.AgeMax = parseStatus(in.Status)
	if in.NetworkSettings != nil {
		row.Endpoints = toEndpoints(in.NetworkSettings.Networks)
	}
	for _, p := range in.Ports {
		if p.PublicPort != 0 {
			row.Ports = append(row.Ports, agent.Port{
				Container: p.PrivatePort, Proto: p.Type, Host: hostAddr(p.IP, p.PublicPort),
			})
		}
	}
	sortPorts(row.Ports)
	return row
}

func hostAddr(ip string, port uint16) netip.AddrPort {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		addr = netip.IPv4Unspecified() // engines before 20.10 left it empty
	}
	return netip.AddrPortFrom(addr, port)
}

func sortPorts(ports []agent.Port) {
	slices.SortFunc(ports, func(a, b agent.Port) int {
		return cmp.Or(
			cmp.Compare(a.Container, b.Container),
			strings.Compare(a.Proto, b.Proto),
			a.Host.Compare(b.Host),
		)
	})
}

func toEndpoints(in map[string]*network.EndpointSettings) []agent.Endpoint {
	var out []agent.Endpoint
	for name, n := range in {
		if n == nil {
			continue
		}
		e := agent.Endpoint{Network: name, NetworkID: n.NetworkID}
		e.IPv4, _ = netip.ParseAddr(n.IPAddress)
		e.IPv6, _ = netip.ParseAddr(n.GlobalIPv6Address)
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b agent.Endpoint) int { return strings.Compare(a.Network, b.Network) })
	return out
}

func toNetworks(in []network.Summary) []agent.Network {
	out := make([]agent.Network, 0, len(in))
	for _, n := range in {
		net := agent.Network{ID: n.ID, Name: n.Name, Driver: n.Driver, Internal: n.Internal}
		if n.Driver == "bridge" {
			net.Bridge = cmp.Or(n.Options["com.docker.network.bridge.name"], "br-"+agent.ShortID(n.ID))
		}
		for _, c := range n.IPAM.Config {
			if p, err := netip.ParsePrefix(c.Subnet); err == nil {
				net.Subnets = append(net.Subnets, p.Masked())
			}
			if a, err := netip.ParseAddr(c.Gateway); err == nil {
				net.Gateways = append(net.Gateways, a)
			}
		}
		if net.Bridge != "" && len(net.Gateways) < len(net.Subnets) {
			net.Gateways = gateways(net)
		}
		out = append(out, net)
	}
	slices.SortFunc(out, func(a, b agent.Network) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	return out
}

// gateways completes a bridge's gateways where the engine does not tell them,
// as for a network that was made with a subnet only: from the interface, or by
// the engine's rule that the first address of the subnet is the gateway.
func gateways(n agent.Network) []netip.Addr {
	var found []netip.Addr
	if iface, err := net.InterfaceByName(n.Bridge); err == nil {
		addrs, _ := iface.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && slices.Contains(n.Subnets, p.Masked()) {
				found = append(found, p.Addr())
			}
		}
	}
	for _, s := range n.Subnets {
		has := func(a netip.Addr) bool { return s.Contains(a) }
		if slices.ContainsFunc(found, has) {
			continue
		}
		if i := slices.IndexFunc(n.Gateways, has); i >= 0 {
			found = append(found, n.Gateways[i])
		} else {
			found = append(found, s.Addr().Next())
		}
	}
	slices.SortFunc(found, netip.Addr.Compare)
	return found
}

// allowedEnv keeps the variables on the list. The first of two with one name
// wins nowhere: like a shell, the process sees the last.
func allowedEnv(env, allow []string) map[string]string {
	var out map[string]string
	for _, kv := range env {
		key, value, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(allow, func(p string) bool { return matches(p, key) }) {
			continue
		}
		if out == nil {
			out = make(map[string]string)
		}
		out[key] = value
	}
	return out
}

func matches(pattern, key string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(key, prefix)
	}
	return key == pattern
}

// toTime reads an engine's time; its year 1 means "never".
func toTime(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

// signalNumber reads a signal as Docker writes it: "15", "SIGTERM", "TERM",
// "RTMIN+3". It returns 0 for what is none. Docker numbers the real-time
// signals from 34 to 64, as glibc does.
func signalNumber(s string) int {
	if n, err := strconv.Atoi(s); err == nil {
		return n
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	const rtmin, rtmax = 34, 64
	for base, sign := range map[string]string{"RTMIN": "+", "RTMAX": "-"} {
		rest, ok := strings.CutPrefix(name, base)
		if !ok {
			continue
		}
		from := rtmin
		if base == "RTMAX" {
			from = rtmax
		}
		if rest == "" {
			return from
		}
		n, err := strconv.Atoi(rest)
		if err != nil || rest[:1] != sign {
			return 0
		}
		return from + n
	}
	return int(unix.SignalNum("SIG" + name))
}
