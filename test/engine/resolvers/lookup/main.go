// Command lookup asks Go's own resolver, as any Go program in a container does,
// and prints what it says.
//
//	lookup wait              do nothing until SIGTERM
//	lookup TYPE/NAME …       ask, and print a line for each question
//	lookup -server ADDR:PORT TYPE/NAME …
//
// TYPE is a (IPv4 addresses), aaaa (IPv6 addresses), addr (both), srv or txt. A
// line is the question and its answers: addresses, target:port, or the text. A
// failure is one word: !nxdomain (Go does not tell a name that does not exist
// from one without such records), or !failure.
//
// testdata/lookup.c is the same for C libraries.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	args := os.Args[1:]
	if len(args) == 0 || args[0] == "wait" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		fmt.Println("ready")
		<-ctx.Done()
		return
	}
	resolver := &net.Resolver{PreferGo: true}
	if len(args) > 2 && args[0] == "-server" {
		server := args[1]
		resolver.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, server)
		}
		args = args[2:]
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Second)
	defer cancel()
	for _, question := range args {
		fmt.Println(question, answer(ctx, resolver, question))
	}
}

// answer returns the rest of the line about a question.
func answer(ctx context.Context, resolver *net.Resolver, question string) string {
	kind, name, _ := strings.Cut(question, "/")
	found, err := ask(ctx, resolver, kind, name)
	var failure *net.DNSError
	switch {
	case errors.As(err, &failure) && failure.IsNotFound:
		return "!nxdomain"
	case err != nil:
		fmt.Fprintln(os.Stderr, "lookup:", err)
		return "!failure"
	}
	return strings.Join(found, " ")
}

func ask(ctx context.Context, resolver *net.Resolver, kind, name string) ([]string, error) {
	switch kind {
	case "a", "aaaa", "addr":
		network := map[string]string{"a": "ip4", "aaaa": "ip6", "addr": "ip"}[kind]
		addrs, err := resolver.LookupNetIP(ctx, network, name)
		var found []string
		for _, a := range addrs {
			found = append(found, a.Unmap().String())
		}
		return found, err
	case "srv":
		_, services, err := resolver.LookupSRV(ctx, "", "", name)
		var found []string
		for _, s := range services {
			found = append(found, fmt.Sprintf("%s:%d", strings.TrimSuffix(s.Target, "."), s.Port))
		}
		return found, err
	case "txt":
		return resolver.LookupTXT(ctx, name)
	}
	return nil, fmt.Errorf("unknown type %q", kind)
}
