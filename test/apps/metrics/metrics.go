// Package metrics is how the sample services tell their metrics, and a sample
// application that does nothing else.
//
// They send to port 8125 of their default route's gateway, which on a Docker
// bridge is the host: what entrypoint scripts compute with
//
//	export STATSD_HOST=$(ip route | awk '/^default/ { print $3 }')
//
// Nobody needs to listen there.
package metrics

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/DataDog/datadog-go/v5/statsd"
)

// Port is where servers of StatsD receive.
const Port = 8125

// Gateway returns the address of the default route's gateway, from the kernel's
// table (proc_net(5)): a row has the interface, destination and gateway first,
// the latter two as hexadecimal numbers in the machine's byte order.
func Gateway() (netip.Addr, error) {
	f, err := os.Open("/proc/net/route")
	if err != nil {
		return netip.Addr{}, err
	}
	defer f.Close()
	return gateway(bufio.NewScanner(f))
}

func gateway(rows *bufio.Scanner) (netip.Addr, error) {
	for rows.Scan() {
		fields := strings.Fields(rows.Text())
		if len(fields) < 3 || fields[1] != "00000000" {
			continue
		}
		b, err := hex.DecodeString(fields[2])
		if err != nil || len(b) != 4 {
			continue
		}
		return netip.AddrFrom4([4]byte{b[3], b[2], b[1], b[0]}), nil // little-endian
	}
	if err := rows.Err(); err != nil {
		return netip.Addr{}, err
	}
	return netip.Addr{}, errors.New("no default route")
}

// host is where the services' metrics go.
var host = sync.OnceValues(func() (string, error) {
	gateway, err := Gateway()
	return netip.AddrPortFrom(gateway, Port).String(), err
})

// Usage is what the services say of the flag that Counting takes.
const Usage = "count requests by StatsD: bare (a datagram for each, without tags) or datadog (datadog-go at its defaults)"

// Counting returns h's paths, whose requests it counts in the way that Usage
// names, or in none if how is empty. What cannot be sent is lost.
func Counting(h http.Handler, name, how string) *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch how {
		case "bare":
			bare(name)
		case "datadog":
			_ = datadog().Incr(name, []string{"path:" + r.URL.Path}, 1)
		}
		h.ServeHTTP(w, r)
	})
	return mux
}

// bare counts one event as the simplest of programs do.
func bare(name string) {
	to, err := host()
	if err != nil {
		return
	}
	conn, err := net.Dial("udp", to)
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s:1|c", name)
}

// datadog is Datadog's client with all its defaults: it adds events up, and sends
// within two seconds.
var datadog = sync.OnceValue(func() statsd.ClientInterface {
	to, err := host()
	if err == nil {
		if c, err := statsd.New(to); err == nil {
			return c
		}
	}
	return &statsd.NoOpClient{}
})

// Run sends metrics as its flags say, tells that it has sent them in one line, and
// waits until ctx ends.
func Run(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("metrics", flag.ContinueOnError)
	how := fs.String("client", "udp", "udp, unix (both: a datagram for each line, as it is) or datadog (datadog-go at its defaults)")
	to := fs.String("to", "", "host:port, or a socket's `path` for unix; by default port 8125 of the gateway")
	count := fs.Int("count", 1, "how many times to count one more; 0: until SIGTERM")
	pause := fs.Duration("pause", 0, "rest after each")
	name := fs.String("name", "app.events", "name of the counter")
	tags := fs.String("tags", "", "tags, as a:b,c:d")
	once := fs.Bool("once", false, "end after that")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *to == "" {
		gateway, err := Gateway()
		if err != nil {
			return fmt.Errorf("find the gateway: %w", err)
		}
		*to = netip.AddrPortFrom(gateway, Port).String()
	}
	// counting sends again and again, and returns how often it did.
	counting := func(send func() error) (n int, err error) {
		for ; (*count == 0 || n < *count) && ctx.Err() == nil; n++ {
			if err := send(); err != nil {
				return n, err
			}
			time.Sleep(*pause)
		}
		return n, nil
	}
	send := sendBare
	if *how == "datadog" {
		send = sendClient
	}
	n, err := send(*how, *to, *name, *tags, counting)
	if err != nil {
		return err
	}
	fmt.Printf("sent %d to %s\n", n, *to)
	if !*once {
		<-ctx.Done()
	}
	return nil
}

func sendBare(network, to, name, tags string, counting func(func() error) (int, error)) (int, error) {
	if network == "unix" {
		network = "unixgram"
	}
	conn, err := net.Dial(network, to)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	line := name + ":1|c"
	if tags != "" {
		line += "|#" + tags
	}
	return counting(func() error {
		_, err := conn.Write([]byte(line))
		return err
	})
}

func sendClient(_, to, name, tags string, counting func(func() error) (int, error)) (int, error) {
	c, err := statsd.New(to)
	if err != nil {
		return 0, err
	}
	var list []string
	if tags != "" {
		list = strings.Split(tags, ",")
	}
	n, err := counting(func() error { return c.Incr(name, list, 1) })
	return n, errors.Join(err,
		c.Gauge(name+".last", float64(n), list, 1),
		c.Timing(name+".took", 250*time.Millisecond, list, 1),
		c.Close()) // which sends the rest
}
