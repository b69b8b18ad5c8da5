package resolvers

import (
	"testing"

	"github.com/berthd/berth/test/engine/enginetest"
)

func TestIPv6(t *testing.T) {
	const gateway0 = "fd00:0:0:1::1"
	w := newWorld(t, kinds, "--ipv6", "--fixed-cidr-v6=fd00:0:0:1::/64")
	for _, iface := range []string{"docker0", "default"} {
		// Addresses are there at once, and not after a search for duplicates.
		w.run(t, "sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/"+iface+"/accept_dad")
	}
	w.startBIND(t, rootZone)
	w.startBerth(t, "dns.forward=true", "dns.upstreams=["+outsideLoop+":53]")
	gateway := w.createNetwork(t, "own", "10.77.0.0/24", "fd00:0:0:2::/64")[1]
	srv := w.startWeb(t)
	w.awaitServer(t, gateway0)

	// There the containers' resolv.conf has the address itself.
	for _, k := range kinds {
		t.Run(k.name+" on the default bridge", func(t *testing.T) {
			c := w.startClient(t, k, enginetest.Spec{DNS: []string{gateway0}})
			c.check(t, inZone(srv))
			c.check(t, elsewhere(k))
		})
	}
	// Here the engine's own server is in between, and old engines do not know
	// how to ask an IPv6 address: so the gateway is asked directly.
	t.Run("on a user-defined network", func(t *testing.T) {
		c := w.startClient(t, golang, enginetest.Spec{Network: "own"})
		w.awaitServer(t, gateway)
		c.server = "[" + gateway + "]:53"
		c.check(t, inZone(srv))
		c.check(t, elsewhere(golang))
	})
}
