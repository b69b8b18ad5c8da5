package dnsserver

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/berthd/berth/agent"
)

func TestDefaultConfigIsValid(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidateListen(t *testing.T) {
	tests := []struct {
		addr string
		why  string // "" where it is accepted
	}{
		{"127.0.0.1", ""},
		{"127.9.9.9", ""},
		{"::1", ""},
		{"10.0.0.1", ""},
		{"172.17.0.1", ""},
		{"192.168.1.1", ""},
		{"169.254.20.10", ""},
		{"100.64.0.1", ""},
		{"fd00::1", ""},
		{"fe80::1%docker0", ""},
		{"::ffff:10.0.0.1", ""},
		{"fe80::1", "interface"},
		{"0.0.0.0", "all addresses"},
		{"::", "all addresses"},
		{"8.8.8.8", "public"},
		{"::ffff:8.8.8.8", "public"},
		{"100.128.0.1", "public"},
		{"2001:db8::1", "public"},
		{"224.0.0.1", "public"},
	}
	for _, tt := range tests {
		err := Config{Listen: []netip.Addr{netip.MustParseAddr(tt.addr)}}.Validate()
		if tt.why == "" && err != nil {
			t.Errorf("%s: %v, want none", tt.addr, err)
		}
		if tt.why != "" && (err == nil || !strings.Contains(err.Error(), tt.why) || !strings.Contains(err.Error(), "listen")) {
			t.Errorf("%s: error %v, want one that says %q", tt.addr, err, tt.why)
		}
	}
}

func TestValidateOthers(t *testing.T) {
	lo := netip.MustParseAddr("127.0.0.1")
	tests := []struct {
		cfg Config
		why string
	}{
		{Config{Listen: []netip.Addr{lo, lo}}, "twice"},
		{Config{Listen: []netip.Addr{{}}}, "missing"},
		{Config{ForwardMisses: true}, "needs forward"},
		{Config{Forward: true, Upstreams: []netip.AddrPort{netip.AddrPortFrom(lo, 0)}}, "no address and port"},
		{Config{Forward: true, Upstreams: []netip.AddrPort{{}}}, "no address and port"},
		{Config{Forward: true, Listen: []netip.Addr{lo}, Port: 53, Upstreams: []netip.AddrPort{netip.AddrPortFrom(lo, 53)}}, "itself"},
	}
	for _, tt := range tests {
		if err := tt.cfg.Validate(); err == nil || !strings.Contains(err.Error(), tt.why) {
			t.Errorf("%+v: error %v, want one that says %q", tt.cfg, err, tt.why)
		}
		if _, err := New(tt.cfg, testEnv(), agent.NewStore()); err == nil {
			t.Errorf("%+v: New takes it", tt.cfg)
		}
	}
}

func TestConfigYAML(t *testing.T) {
	text := "listen: [127.0.0.1, 'fd00::1']\nport: 5353\nforward: true\nforward_misses: true\nupstreams: ['10.0.0.2:53']\n"
	var c Config
	if err := yaml.UnmarshalWithOptions([]byte(text), &c, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if len(c.Listen) != 2 || c.Port != 5353 || !c.Forward || !c.ForwardMisses || c.Upstreams[0].String() != "10.0.0.2:53" {
		t.Errorf("got %+v", c)
	}
}
