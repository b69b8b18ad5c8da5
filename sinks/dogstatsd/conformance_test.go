package dogstatsd

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/sinks/sinktest"
)

// recorder is an upstream that keeps all lines.
type recorder struct {
	network, address string

	mu    sync.Mutex
	conn  net.PacketConn
	lines []string
	ended sync.WaitGroup
}

func (r *recorder) up() error {
	if r.network == "unixgram" {
		_ = os.Remove(r.address) // of the one before
	}
	conn, err := net.ListenPacket(r.network, r.address)
	if err != nil {
		return err
	}
	r.conn, r.address = conn, conn.LocalAddr().String()
	r.ended.Go(func() {
		for buf := make([]byte, 1<<16); ; {
			n, _, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			for line := range strings.SplitSeq(string(buf[:n]), "\n") {
				if line != "" {
					r.lines = append(r.lines, line)
				}
			}
			r.mu.Unlock()
		}
	})
	return nil
}

func (r *recorder) down() error {
	err := r.conn.Close()
	r.ended.Wait()
	return err
}

func (r *recorder) received() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string{}, r.lines...)
}

func TestLineConformance(t *testing.T) {
	for name, segment := range map[string]bool{"udp": false, "segments": true, "unixgram": false} {
		t.Run(name, func(t *testing.T) {
			sinktest.LineSink(t, func(t *testing.T) sinktest.LineFixture {
				up := &recorder{network: "udp", address: "127.0.0.1:0"}
				if name == "unixgram" {
					up.network, up.address = name, filepath.Join(t.TempDir(), "s")
				}
				if err := up.up(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = up.down() })
				log := slog.New(slog.DiscardHandler)
				sink, err := NewLines(LineConfig{Address: up.address, Buffer: 1 << 20, Segment: segment}, agent.Env{Log: log, Health: agent.NewHealth(log)})
				if err != nil {
					t.Fatal(err)
				}
				return sinktest.LineFixture{Sink: sink, Received: up.received, Down: up.down, Up: up.up}
			})
		})
	}
}
