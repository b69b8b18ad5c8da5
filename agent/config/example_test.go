package config_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/berthd/berth/agent/config"
)

// Server is what a component's package exports.
type Server struct {
	// Listen is the address that it answers on.
	Listen netip.AddrPort `yaml:"listen"`
	// TTL is how long an answer may be kept.
	TTL config.Duration `yaml:"ttl"`
}

// Validate implements config.Validator.
func (s Server) Validate() error {
	if s.TTL.Std() > time.Hour {
		return config.Fieldf("ttl", "%s is too long: write at most 1h", s.TTL)
	}
	return nil
}

// root is what a command composes of its components' structs.
type root struct {
	Server Server `yaml:"server"`
}

func defaults() root {
	return root{Server{Listen: netip.MustParseAddrPort("127.0.0.1:53"), TTL: config.Duration(10 * time.Second)}}
}

func Example() {
	cfg := defaults()
	res, err := config.Load(&cfg, config.File{Name: "berth.yaml", Data: []byte("server:\n  ttl: 1m\n")})
	if err != nil {
		panic(err)
	}
	fmt.Println(cfg.Server.TTL.Std())
	os.Stdout.Write(config.Effective(cfg, res))
	// Output:
	// 1m0s
	// server:
	//   listen: 127.0.0.1:53  # default
	//   ttl: 1m               # berth.yaml:2
}

func Example_errors() {
	cfg := defaults()
	_, err := config.Load(&cfg, config.File{Name: "berth.yaml", Data: []byte("server:\n  lisen: 127.0.0.1:53\n  ttl: 60\n")})
	if bad, ok := errors.AsType[*config.Errors](err); ok {
		_ = bad.Format(os.Stdout, false)
	}
	// Output:
	// berth.yaml:2:3: server: unknown key "lisen"
	//   1 | server:
	//   2 |   lisen: 127.0.0.1:53
	//     |   ^^^^^
	//   3 |   ttl: 60
	//   = did you mean "listen"?
	//
	// berth.yaml:3:8: server.ttl: the duration 60 has no unit
	//   2 |   lisen: 127.0.0.1:53
	//   3 |   ttl: 60
	//     |        ^^
	//   = write 60s for seconds, 60m for minutes, or another of ms, h, d
	//
	// 2 errors in berth.yaml
}
