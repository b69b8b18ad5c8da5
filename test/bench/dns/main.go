// Command dns measures berth's DNS server beside CoreDNS (its file plugin) and
// NSD, and prints one table.
//
//	go run ./test/bench/dns          # ≤ 3 minutes, after CoreDNS has been built once
//	go run ./test/bench/dns -check   # fails unless the limits below hold
//
// All three serve the same zone (200 services with 8 targets each) on loopback,
// each on one core: pinned to CPU 0, GOMAXPROCS=1, one NSD server process.
// dnsperf, pinned to CPU 1, asks for SRV (4 of 5 questions) and A with EDNS. In
// each of several rounds every server in turn gets all that dnsperf can give,
// then half of its own maximum for the latency of single answers, then half of
// CoreDNS's maximum, so that latency can be compared at one rate. The table has
// the medians over the rounds.
//
// Answers per CPU-second are what counts for an agent: what a question costs the
// host. They come from the user and system time of the server's processes in
// /proc, which includes the kernel's work on its sockets.
//
// Limits of -check: answers per CPU-second ≥ 1.5 × CoreDNS's, and p99 latency,
// each at half of its own maximum, ≤ CoreDNS's, and publishing 1,000 records takes
// at most 2 ms.
//
// CoreDNS is built from the module in test/tools/coredns into .cache. Debian's
// dnsperf and nsd are installed where they are missing, which needs root.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// The limits of -check, as ratios to CoreDNS.
const (
	minPerCPU = 1.5
	maxP99    = 1.0
)

func main() {
	check := flag.Bool("check", false, "exit with 1 unless the limits hold")
	rounds := flag.Int("rounds", 5, "number of rounds")
	length := flag.Duration("time", 3*time.Second, "length of each measurement")
	serve := flag.String("serve", "", "serve the zone with berth on this `address`, and do nothing else")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *serve, *rounds, *length, *check); err != nil {
		fmt.Fprintln(os.Stderr, "bench-dns:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, serve string, rounds int, length time.Duration, check bool) error {
	if serve != "" {
		return serveBerth(ctx, serve)
	}
	coredns, err := prepare(ctx)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "bench-dns-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(dir)
	servers, err := startAll(ctx, dir, coredns)
	defer stopAll(servers)
	if err != nil {
		return err
	}
	for i := range rounds {
		if err := measureRound(ctx, dir, servers, length); err != nil {
			return fmt.Errorf("round %d: %w", i+1, err)
		}
		fmt.Fprintf(os.Stderr, "bench-dns: round %d of %d done\n", i+1, rounds)
	}
	publish, err := publishTime(ctx)
	if err != nil {
		return err
	}
	return report(servers, publish, check)
}

// measureRound measures every server once.
func measureRound(ctx context.Context, dir string, servers []*server, length time.Duration) error {
	for _, s := range servers {
		full, err := load(ctx, dir, s, length, 0)
		if err != nil {
			return err
		}
		s.max = append(s.max, full)
	}
	var common int
	for _, s := range servers {
		if s.name == nameCoreDNS {
			common = int(s.max[len(s.max)-1].rate / 2)
		}
	}
	for _, s := range servers {
		half, err := load(ctx, dir, s, length, int(s.max[len(s.max)-1].rate/2))
		if err != nil {
			return err
		}
		s.half = append(s.half, half)
		same, err := load(ctx, dir, s, length, common)
		if err != nil {
			return err
		}
		s.same = append(s.same, same)
	}
	return nil
}

// report prints the table, and returns an error if limits are to be checked and
// do not hold.
func report(servers []*server, publish time.Duration, check bool) error {
	i := slices.IndexFunc(servers, func(s *server) bool { return s.name == nameCoreDNS })
	base := servers[i]
	perCPU := func(s *server) float64 {
		return median(s.max, func(m measurement) float64 { return m.rate * m.wall / m.cpu })
	}
	p := func(ms []measurement, q int) float64 {
		return median(ms, func(m measurement) float64 { return m.percentile(q).Seconds() * 1e6 })
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "server\tmax q/s\tlost\tbusy\tanswers/CPU-s\tratio\tp50 µs at half its max\tp99 µs\tp50 µs at half CoreDNS's\tp99 µs\t")
	for _, s := range servers {
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%.0f%%\t%.0f\t%.2f\t%.0f\t%.0f\t%.0f\t%.0f\t\n", s.name,
			median(s.max, func(m measurement) float64 { return m.rate }),
			median(s.max, func(m measurement) float64 { return float64(m.lost) }),
			median(s.max, func(m measurement) float64 { return 100 * m.cpu / m.wall }),
			perCPU(s), perCPU(s)/perCPU(base),
			p(s.half, 50), p(s.half, 99), p(s.same, 50), p(s.same, 99))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Println("\nMedians of", len(base.max), "rounds; one core for each server, one for dnsperf; \"busy\" is the server's share of its core at its maximum.")
	fmt.Println("A server that is not fully busy is faster than dnsperf, and its maximum is dnsperf's.")
	fmt.Println("berth publishes 1,000 records in", publish.Round(time.Microsecond))
	if !check {
		return nil
	}
	berth := servers[slices.IndexFunc(servers, func(s *server) bool { return s.name == nameBerth })]
	var broken []string
	if got := perCPU(berth) / perCPU(base); got < minPerCPU {
		broken = append(broken, fmt.Sprintf("answers per CPU-second are %.2f × CoreDNS's, want at least %.1f", got, minPerCPU))
	}
	if got := p(berth.half, 99) / p(base.half, 99); got > maxP99 {
		broken = append(broken, fmt.Sprintf("p99 latency is %.2f × CoreDNS's, want at most %.1f", got, maxP99))
	}
	if publish > maxPublish {
		broken = append(broken, fmt.Sprintf("publishing 1,000 records takes %v, want at most %v", publish, maxPublish))
	}
	if len(broken) > 0 {
		return fmt.Errorf("limits do not hold: %s", strings.Join(broken, "; "))
	}
	fmt.Println("The limits hold.")
	return nil
}

// median returns the median of a figure.
func median(ms []measurement, figure func(measurement) float64) float64 {
	var vs []float64
	for _, m := range ms {
		vs = append(vs, figure(m))
	}
	slices.SortFunc(vs, cmp.Compare)
	return vs[len(vs)/2]
}

// prepare installs and builds what is missing, and returns the path of CoreDNS.
func prepare(ctx context.Context) (coredns string, err error) {
	var packages []string
	for command, pkg := range map[string]string{"dnsperf": "dnsperf", "/usr/sbin/nsd": "nsd", "taskset": "util-linux"} {
		if _, err := exec.LookPath(command); err != nil {
			packages = append(packages, pkg)
		}
	}
	if len(packages) > 0 {
		slices.Sort(packages)
		fmt.Fprintln(os.Stderr, "bench-dns: install from Debian:", strings.Join(packages, " "))
		if os.Geteuid() != 0 {
			return "", fmt.Errorf("install %s: run this as root, or install by hand", strings.Join(packages, " "))
		}
		if err := command(ctx, "", "apt-get", "update", "-qq"); err != nil {
			return "", err
		}
		args := append([]string{"install", "-y", "-qq", "--no-install-recommends"}, packages...)
		if err := command(ctx, "", "apt-get", args...); err != nil {
			return "", err
		}
	}
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	dir := strings.TrimSpace(string(root))
	coredns = filepath.Join(dir, ".cache", "bench-dns", "coredns")
	if _, err := os.Stat(coredns); err != nil {
		fmt.Fprintln(os.Stderr, "bench-dns: build CoreDNS, once: some two minutes")
	}
	// The go command does nothing when the pinned version has been built.
	return coredns, command(ctx, filepath.Join(dir, "test", "tools", "coredns"),
		"go", "build", "-trimpath", "-o", coredns, "github.com/coredns/coredns")
}

// command runs a command whose output matters only when it fails.
func command(ctx context.Context, dir, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("run %s: %w\n%s", name, err, out)
	}
	return nil
}
