// Command baseline is the StatsD relay that the benchmark compares berth's with:
// the one that anybody would write first, with a large receive buffer. It reads
// a datagram and writes it to the upstream as it came, one system call for each;
// it looks at no byte and adds no tag.
//
//	baseline -listen 127.0.0.1:8125 -upstream 127.0.0.1:9125
//	baseline -listen 127.0.0.1:8125 -upstream unix:/run/dogstatsd.sock
//
// It was written before berth's own relay, and it is to be left alone for ever:
// neither tuned, which would move the mark, nor slowed, which would flatter. All
// ratios in test/bench/README.md are to this program.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
)

// What the baseline asks of the kernel and reads at most.
const (
	receiveBuffer = 4 << 20 // bytes, SO_RCVBUF; the kernel grants net.core.rmem_max at most
	largest       = 65535   // bytes of a datagram
)

func main() {
	listen := flag.String("listen", "127.0.0.1:8125", "receive on this UDP `address`")
	upstream := flag.String("upstream", "127.0.0.1:9125", "send to this UDP `address`, or unix:PATH of a datagram socket")
	flag.Parse()
	if err := relay(*listen, *upstream); err != nil {
		fmt.Fprintln(os.Stderr, "baseline:", err)
		os.Exit(1)
	}
}

// relay copies datagrams for ever. What the upstream refuses is lost.
func relay(listen, upstream string) error {
	in, err := net.ListenPacket("udp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if err := in.(*net.UDPConn).SetReadBuffer(receiveBuffer); err != nil {
		return fmt.Errorf("set the receive buffer: %w", err)
	}
	network, address := "udp", upstream
	if path, ok := strings.CutPrefix(upstream, "unix:"); ok {
		network, address = "unixgram", path
	}
	out, err := net.Dial(network, address)
	if err != nil {
		return fmt.Errorf("reach the upstream: %w", err)
	}
	buf := make([]byte, largest)
	for {
		n, _, err := in.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		_, _ = out.Write(buf[:n])
	}
}
