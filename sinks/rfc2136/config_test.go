package rfc2136

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/berthd/berth/agent"
	"github.com/berthd/berth/agent/config"
)

func TestDefaultConfigIsValid(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil || DefaultConfig().Enabled {
		t.Errorf("got %v, enabled %v, want none and disabled", err, DefaultConfig().Enabled)
	}
}

// What is described before it is configured must be there: its metrics, say.
func TestNew_IncompleteConfigOnlySaysSo(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	health := agent.NewHealth(log)
	health.Scope(Name)
	cfg := DefaultConfig()
	cfg.Enabled = true
	s, err := New(cfg, agent.Env{Log: log, Health: health, Node: identity{host: "host1"}, StateDir: t.TempDir()})
	must(t, err)
	s.health.Declare(condUpdate, agent.SeverityError, 0)
	for range s.Metrics {
	}
	if s.Summary() == "" {
		t.Error("no summary")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	must(t, s.Run(ctx, new(agent.Records).Subscribe()))
	if err := health.Err(Name); err == nil || !strings.Contains(err.Error(), "servers: ") {
		t.Errorf("got condition %v, want what is missing", err)
	}
	if err := s.Remove(ctx); err == nil || !strings.Contains(err.Error(), "servers: ") {
		t.Errorf("Remove: got %v, want what is missing", err)
	}
	cfg.Algorithm = "hmac-md5"
	if _, err := New(cfg, agent.Env{Log: log, Health: health}); err == nil {
		t.Error("what is wrong, and not only missing, is no error")
	}
}

func TestValidate(t *testing.T) {
	good := DefaultConfig()
	good.Enabled = true
	good.Servers = []string{"192.0.2.53:53", "[2001:db8::53]:53", "ns.example:5353"}
	good.Zone, good.Key = "example.", "host1.example"
	good.Secret = secret(t, "c2VjcmV0")
	tests := []struct {
		change func(*Config)
		want   []string // none where it is valid
	}{
		{func(*Config) {}, nil},
		{func(c *Config) { c.Algorithm = SHA512 }, nil},
		{func(c *Config) { *c = DefaultConfig(); c.Enabled = true }, []string{"servers: name", "key: ", "secret: "}},
		{func(c *Config) { c.Servers = []string{"192.0.2.53"} }, []string{"servers: ", "host:port"}},
		{func(c *Config) { c.Servers = []string{":53"} }, []string{"servers: "}},
		{func(c *Config) { c.Servers = []string{"ns:0"} }, []string{"servers: ", "port"}},
		{func(c *Config) { c.Servers = []string{"ns:53", "ns:53"} }, []string{"servers: ", "twice"}},
		{func(c *Config) { c.Zone = "a..b" }, []string{"zone: "}},
		{func(c *Config) { c.Key = "a key" }, []string{"key: "}},
		{func(c *Config) { c.Algorithm = "hmac-md5" }, []string{"algorithm: ", "hmac-sha256"}},
		{func(c *Config) { c.Algorithm = "hmac-sha1" }, []string{"algorithm: ", "hmac-sha256"}},
		{func(c *Config) { c.Timeout = 0 }, []string{"timeout: "}},
		{func(c *Config) { c.Timeout = config.Duration(time.Hour) }, []string{"timeout: "}},
		{func(c *Config) { c.Secret = config.Secret{} }, []string{"secret: ", "0600"}},
	}
	for _, tt := range tests {
		c := good
		tt.change(&c)
		err := c.Validate()
		if (err != nil) != (len(tt.want) > 0) {
			t.Errorf("%+v: got %v, want %q", c, err, tt.want)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%+v: got %v, want %q in it", c, err, w)
			}
		}
	}
}
