// Package portal is the sample service that needs others: GET /?a=1&b=2 finds
// calc and time by their SRV records in DNS, asks both, and answers with an
// Answer that says which instance served it.
//
// It knows no addresses, only a domain: it looks up _calc._tcp.<domain> and
// _time._tcp.<domain> with the resolver of its container, follows each record
// to its target's addresses and its port, and takes the next record when one
// does not answer. The order of the records is that of RFC 2782: by priority,
// then at random by weight.
package portal

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/berthd/berth/test/apps/calc"
	"github.com/berthd/berth/test/apps/metrics"
	"github.com/berthd/berth/test/apps/serve"
	clock "github.com/berthd/berth/test/apps/time"
)

// Answer is what / answers, as JSON: status 200 when both services answered,
// 502 otherwise, with the errors of those that did not.
type Answer struct {
	Instance string        `json:"instance"` // the portal's own container
	Calc     *calc.Answer  `json:"calc,omitempty"`
	Time     *clock.Answer `json:"time,omitempty"`
	Found    []Found       `json:"found"`
	Errors   []string      `json:"errors,omitempty"`
}

// Found is one service as DNS had it.
type Found struct {
	Name    string   `json:"name"`             // the SRV record's name
	Targets []string `json:"targets"`          // host:port, in the order tried
	Used    string   `json:"used,omitempty"`   // ip:port that answered
	Lookup  string   `json:"lookup,omitempty"` // how long the SRV look-up took
}

// Resolver is what the portal needs of DNS; *net.Resolver has it.
type Resolver interface {
	LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
	LookupHost(ctx context.Context, host string) ([]string, error)
}

// Portal answers requests with the help of the services of Domain.
type Portal struct {
	Domain   string // where the services' records are, such as berth.internal
	Resolver Resolver
	Client   *http.Client
}

// Run serves until ctx ends. Its flags are -listen, -domain, -timeout
// and -metrics.
func Run(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("portal", flag.ContinueOnError)
	listen := fs.String("listen", ":8080", "TCP address to serve on")
	domain := fs.String("domain", "berth.internal", "domain of the services' SRV records")
	timeout := fs.Duration("timeout", 2*time.Second, "time limit of a request to a service")
	count := fs.String("metrics", "", metrics.Usage)
	if err := fs.Parse(args); err != nil {
		return err
	}
	p := &Portal{
		Domain:   *domain,
		Resolver: &net.Resolver{PreferGo: true},
		// A connection that is kept would outlive the record that led to it.
		Client: &http.Client{Timeout: *timeout, Transport: &http.Transport{DisableKeepAlives: true}},
	}
	return serve.HTTP(ctx, *listen, metrics.Counting(p.Handler(), "portal.requests", *count))
}

// Handler returns the service's paths.
func (p *Portal) Handler() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", p.answer)
	return mux
}

func (p *Portal) answer(w http.ResponseWriter, r *http.Request) {
	ans := Answer{Instance: serve.Instance()}
	sum := url.Values{"a": {formOr(r, "a", "1")}, "b": {formOr(r, "b", "2")}}

	var c calc.Answer
	if p.ask(r.Context(), &ans, "calc", "/add?"+sum.Encode(), &c) {
		ans.Calc = &c
	}
	var t clock.Answer
	if p.ask(r.Context(), &ans, "time", "/now", &t) {
		ans.Time = &t
	}
	status := http.StatusOK
	if len(ans.Errors) > 0 {
		status = http.StatusBadGateway
	}
	serve.JSON(w, status, ans)
}

func formOr(r *http.Request, key, or string) string {
	if v := r.FormValue(key); v != "" {
		return v
	}
	return or
}

// ask finds a service and decodes its answer to path into v. It notes in ans
// what it found and what went wrong, and reports whether v is filled in.
func (p *Portal) ask(ctx context.Context, ans *Answer, service, path string, v any) bool {
	found, err := p.find(ctx, service, path, v)
	ans.Found = append(ans.Found, found)
	if err != nil {
		ans.Errors = append(ans.Errors, fmt.Sprintf("%s: %v", service, err))
	}
	return err == nil
}

func (p *Portal) find(ctx context.Context, service, path string, v any) (Found, error) {
	f := Found{Name: fmt.Sprintf("_%s._tcp.%s", service, p.Domain)}
	start := time.Now()
	_, srvs, err := p.Resolver.LookupSRV(ctx, service, "tcp", p.Domain)
	f.Lookup = time.Since(start).Round(time.Microsecond).String()
	if err != nil {
		return f, err
	}
	for _, srv := range srvs {
		f.Targets = append(f.Targets, hostPort(strings.TrimSuffix(srv.Target, "."), srv.Port))
	}
	errs := []error{errors.New("no instance answers")}
	for _, srv := range srvs {
		addrs, err := p.Resolver.LookupHost(ctx, srv.Target)
		errs = append(errs, err)
		for _, addr := range addrs {
			at := hostPort(addr, srv.Port)
			err := p.get(ctx, "http://"+at+path, v)
			if err == nil {
				f.Used = at
				return f, nil
			}
			errs = append(errs, err)
		}
	}
	return f, errors.Join(errs...)
}

func (p *Portal) get(ctx context.Context, url string, v any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := p.Client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s", url, resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(v); err != nil {
		return fmt.Errorf("decode answer of %s: %w", url, err)
	}
	return nil
}

func hostPort(host string, port uint16) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}
