package metrics

import (
	"bufio"
	"context"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestGateway(t *testing.T) {
	const head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
	at, err := gateway(bufio.NewScanner(strings.NewReader(head + "eth0\t000011AC\t00000000\t0001\nfoo\neth0\t00000000\t010011AC\t0003\t0\n")))
	if want := netip.MustParseAddr("172.17.0.1"); err != nil || at != want {
		t.Errorf("got %v, %v, want %v", at, err, want)
	}
	if at, err := gateway(bufio.NewScanner(strings.NewReader(head))); err == nil {
		t.Errorf("got %v of a table without a default route", at)
	}
}

// TestRun has each client's lines arrive.
func TestRun(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	path := filepath.Join(t.TempDir(), "s")
	socket, err := net.ListenPacket("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for _, c := range []struct {
		how, to string
		at      net.PacketConn
		want    []string
	}{
		{"udp", udp.LocalAddr().String(), udp, []string{"a.b:1|c|#x:y", "a.b:1|c|#x:y"}},
		{"unix", path, socket, []string{"a.b:1|c|#x:y", "a.b:1|c|#x:y"}},
		// It adds up, and adds the container's ID where there is one.
		{"datadog", udp.LocalAddr().String(), udp, []string{"a.b:2|c|#x:y", "a.b.last:2|g|#x:y", "a.b.took:250.000000|ms|#x:y"}},
	} {
		args := []string{"-client", c.how, "-to", c.to, "-name", "a.b", "-tags", "x:y", "-count", "2", "-once"}
		if err := Run(context.Background(), args); err != nil {
			t.Fatal(err)
		}
		found := make(map[string]int)
		for missing := len(c.want); missing > 0; {
			var room [8192]byte
			if err := c.at.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
			n, _, err := c.at.ReadFrom(room[:])
			if err != nil {
				t.Fatalf("%s: got %v, want %q: %v", c.how, found, c.want, err)
			}
			for line := range strings.Lines(string(room[:n])) {
				line, _, _ = strings.Cut(strings.TrimSpace(line), "|c:")
				for _, want := range c.want {
					if line == want {
						missing--
						found[line]++
						break
					}
				}
			}
		}
	}
}
