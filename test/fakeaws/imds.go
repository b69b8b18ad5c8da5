// Package fakeaws has stand-ins for the parts of AWS that berth talks to, at
// least as strict as AWS is: what they accept, AWS accepts too. They listen on
// loopback and keep everything in memory.
//
//	imds := fakeaws.ServeIMDS(t, fakeaws.Instance{ID: "i-0123456789abcdef0"})
//	cfg.IMDSEndpoint = imds.URL()
//	imds.SetMode(fakeaws.Silent)                       // the hop limit is too low
//	imds.Set("spot/instance-action", `{"action":"terminate","time":"…"}`)
package fakeaws

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Instance is an EC2 instance, as its metadata describe it. What is empty gets
// a plausible value, except for IPv6: an instance without one has no such item.
type Instance struct {
	ID, Account, Region, Zone, Type, ImageID string
	IPv4, IPv6                               string
}

func (i Instance) withDefaults() Instance {
	fill := func(p *string, s string) {
		if *p == "" {
			*p = s
		}
	}
	fill(&i.ID, "i-0123456789abcdef0")
	fill(&i.Account, "123456789012")
	fill(&i.Region, "eu-central-1")
	fill(&i.Zone, i.Region+"a")
	fill(&i.Type, "m7g.large")
	fill(&i.ImageID, "ami-0123456789abcdef0")
	fill(&i.IPv4, "10.20.30.40")
	return i
}

// Mode is how the metadata service behaves.
type Mode int

const (
	// Normal answers.
	Normal Mode = iota
	// Disabled answers everything with 403, as with HttpEndpoint=disabled.
	Disabled
	// Silent takes connections and never answers, as where the hop limit is too
	// low for who asks.
	Silent
	// Refusing takes no connections.
	Refusing
	// Failing answers everything with 500.
	Failing
)

// IMDS is an instance metadata service which requires version 2: each request
// needs a session token, which only a PUT gets. All methods are safe for
// concurrent use.
type IMDS struct {
	addr    string
	handler http.Handler

	mu       sync.Mutex
	server   *http.Server // nil while refusing
	served   chan struct{}
	mode     Mode
	released chan struct{} // closed to let go of silent requests
	inst     Instance
	items    map[string]string // below meta-data/, without leading slash
	tokens   map[string]time.Time
	v1       []string
	requests map[string]int
}

// StartIMDS starts a metadata service for one instance. Close it.
func StartIMDS(inst Instance) (*IMDS, error) {
	m := &IMDS{released: make(chan struct{}), requests: make(map[string]int)}
	m.handler = http.HandlerFunc(m.serve)
	m.Switch(inst)
	if err := m.listen("127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("start metadata service: %w", err)
	}
	return m, nil
}

// ServeIMDS starts a metadata service that ends with the test, and fails the
// test if anyone used version 1.
func ServeIMDS(t testing.TB, inst Instance) *IMDS {
	t.Helper()
	m, err := StartIMDS(inst)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		if v1 := m.V1Attempts(); len(v1) > 0 {
			t.Errorf("requests without a token (IMDSv1): %q", v1)
		}
	})
	return m
}

func (m *IMDS) listen(addr string) error {
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	if m.addr == "" {
		m.addr = l.Addr().String()
	}
	m.server = &http.Server{Handler: m.handler, ReadHeaderTimeout: 5 * time.Second}
	m.served = make(chan struct{})
	go func(s *http.Server, done chan struct{}) {
		defer close(done)
		_ = s.Serve(l)
	}(m.server, m.served)
	return nil
}

// URL returns the service's address, for AWS_EC2_METADATA_SERVICE_ENDPOINT. It
// stays the same in every mode.
func (m *IMDS) URL() string { return "http://" + m.addr }

// Close ends the service.
func (m *IMDS) Close() { m.SetMode(Refusing) }

// SetMode changes how the service behaves. Requests that are being ignored are
// cut off.
func (m *IMDS) SetMode(mode Mode) {
	m.mu.Lock()
	close(m.released)
	m.released = make(chan struct{})
	m.mode = mode
	server, served := m.server, m.served
	switch {
	case mode == Refusing:
		m.server = nil
	case server == nil:
		if err := m.listen(m.addr); err != nil {
			m.mu.Unlock()
			panic(fmt.Sprintf("listen again at %s: %v", m.addr, err))
		}
	default:
		server = nil
	}
	m.mu.Unlock()
	if server != nil {
		_ = server.Close()
		<-served
	}
}

// Switch makes the service that of another instance. Tokens of the one before
// are worth nothing then.
func (m *IMDS) Switch(inst Instance) {
	inst = inst.withDefaults()
	items := map[string]string{
		"ami-id":                      inst.ImageID,
		"hostname":                    "ip-" + strings.ReplaceAll(inst.IPv4, ".", "-") + "." + inst.Region + ".compute.internal",
		"instance-id":                 inst.ID,
		"instance-life-cycle":         "on-demand",
		"instance-type":               inst.Type,
		"local-ipv4":                  inst.IPv4,
		"placement/availability-zone": inst.Zone,
		"placement/region":            inst.Region,
		"services/domain":             "amazonaws.com",
		"services/partition":          "aws",
	}
	if inst.IPv6 != "" {
		items["ipv6"] = inst.IPv6
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inst, m.items, m.tokens = inst, items, make(map[string]time.Time)
}

// Set puts an item into the tree below meta-data/, such as
// "autoscaling/target-lifecycle-state".
func (m *IMDS) Set(item, value string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.items[strings.Trim(item, "/")] = value
}

// Delete removes an item, which is 404 from then on.
func (m *IMDS) Delete(item string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.items, strings.Trim(item, "/"))
}

// ExpireTokens makes every token that was handed out invalid.
func (m *IMDS) ExpireTokens() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.tokens)
}

// V1Attempts returns the paths that were asked for without any token.
func (m *IMDS) V1Attempts() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.v1)
}

// Requests returns how often each "METHOD /path" was asked for.
func (m *IMDS) Requests() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.requests)
}

const (
	tokenPath   = "/latest/api/token"
	tokenHeader = "X-Aws-Ec2-Metadata-Token"
	ttlHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	maxTTL      = 21600 // seconds; "Use IMDSv2" in the EC2 user guide
)

func (m *IMDS) serve(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	mode, released := m.mode, m.released
	m.requests[r.Method+" "+r.URL.Path]++
	m.mu.Unlock()
	w.Header().Set("Server", "EC2ws")
	switch mode {
	case Silent:
		select {
		case <-released:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case Disabled:
		refuse(w, http.StatusForbidden)
	case Failing:
		refuse(w, http.StatusInternalServerError)
	default:
		if r.URL.Path == tokenPath {
			m.serveToken(w, r)
		} else {
			m.serveItem(w, r)
		}
	}
}

func (m *IMDS) serveToken(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPut {
		w.Header().Set("Allow", "OPTIONS, PUT")
		refuse(w, http.StatusMethodNotAllowed)
		return
	}
	// A PUT that came through a proxy may come from outside of the instance.
	if r.Header.Get("X-Forwarded-For") != "" {
		refuse(w, http.StatusForbidden)
		return
	}
	ttl, err := strconv.Atoi(r.Header.Get(ttlHeader))
	if err != nil || ttl < 1 || ttl > maxTTL {
		refuse(w, http.StatusBadRequest)
		return
	}
	token := rand.Text() + rand.Text()
	m.mu.Lock()
	m.tokens[token] = time.Now().Add(time.Duration(ttl) * time.Second)
	m.mu.Unlock()
	w.Header().Set(ttlHeader, strconv.Itoa(ttl))
	answer(w, "text/plain", token)
}

func (m *IMDS) serveItem(w http.ResponseWriter, r *http.Request) {
	token := r.Header.Get(tokenHeader)
	m.mu.Lock()
	defer m.mu.Unlock()
	if token == "" {
		m.v1 = append(m.v1, r.Method+" "+r.URL.Path)
	}
	if expires, ok := m.tokens[token]; !ok || !time.Now().Before(expires) {
		refuse(w, http.StatusUnauthorized)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuse(w, http.StatusMethodNotAllowed)
		return
	}
	if r.URL.Path == "/latest/dynamic/instance-identity/document" {
		answer(w, "text/plain", m.document())
		return
	}
	item, ok := strings.CutPrefix(r.URL.Path, "/latest/meta-data")
	if !ok || item != "" && item[0] != '/' {
		refuse(w, http.StatusNotFound)
		return
	}
	item = strings.TrimPrefix(item, "/")
	if value, ok := m.items[item]; ok {
		answer(w, "text/plain", value)
		return
	}
	if list := m.list(strings.TrimSuffix(item, "/")); list != "" {
		answer(w, "text/plain", list)
		return
	}
	refuse(w, http.StatusNotFound)
}

// list returns the names below a folder, one a line, folders with a slash.
func (m *IMDS) list(folder string) string {
	names := make(map[string]bool)
	for item := range m.items {
		rest := item
		if folder != "" {
			var ok bool
			if rest, ok = strings.CutPrefix(item, folder+"/"); !ok {
				continue
			}
		}
		name, _, deeper := strings.Cut(rest, "/")
		if deeper {
			name += "/"
		}
		names[name] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(names)), "\n")
}

func (m *IMDS) document() string {
	doc, err := json.MarshalIndent(map[string]any{
		"accountId":               m.inst.Account,
		"architecture":            "arm64",
		"availabilityZone":        m.inst.Zone,
		"billingProducts":         nil,
		"devpayProductCodes":      nil,
		"marketplaceProductCodes": nil,
		"imageId":                 m.inst.ImageID,
		"instanceId":              m.inst.ID,
		"instanceType":            m.inst.Type,
		"kernelId":                nil,
		"pendingTime":             "2026-01-02T03:04:05Z",
		"privateIp":               m.inst.IPv4,
		"ramdiskId":               nil,
		"region":                  m.inst.Region,
		"version":                 "2017-09-30",
	}, "", "  ")
	if err != nil {
		panic(fmt.Sprintf("encode identity document: %v", err)) // strings cannot fail
	}
	return string(doc)
}

func answer(w http.ResponseWriter, contentType, body string) {
	w.Header().Set("Content-Type", contentType)
	_, _ = io.WriteString(w, body)
}

// refuse answers with the HTML page that the real service sends.
func refuse(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	title := strconv.Itoa(status) + " - " + http.StatusText(status)
	fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<html><head><title>%s</title></head><body><h1>%s</h1></body></html>\n", title, title)
}
