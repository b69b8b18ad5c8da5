package dnsserver

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
)

// resolvCheck is how long the contents of resolv.conf are taken for current.
const resolvCheck = time.Second

// resolvConf follows the name servers in a resolv.conf(5). It looks at the file
// when it is asked, at most once a second: nothing is forwarded on most hosts.
type resolvConf struct {
	path string

	mu      sync.Mutex
	checked time.Time
	list    []netip.AddrPort
	err     error
}

// servers returns the servers, in the order of the file. The caller must not
// change the slice.
func (c *resolvConf) servers() ([]netip.AddrPort, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.checked) > resolvCheck {
		c.checked = time.Now()
		b, err := os.ReadFile(c.path)
		if err != nil {
			err = fmt.Errorf("read name servers: %w", err)
		}
		c.list, c.err = parseResolvConf(string(b)), err
	}
	return c.list, c.err
}

// parseResolvConf returns the name servers in the text of a resolv.conf. Lines
// that it does not understand are passed over, as the C library does.
func parseResolvConf(text string) []netip.AddrPort {
	var list []netip.AddrPort
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			list = append(list, netip.AddrPortFrom(a, 53))
		}
	}
	return list
}
