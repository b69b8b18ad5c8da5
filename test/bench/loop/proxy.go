package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"sync"
	"time"
)

// The kinds of calls that the proxy tells apart; what is not one of them counts
// under its method and path.
const (
	kindList     = "container list"
	kindNetworks = "network list"
	kindInspect  = "inspect"
	kindEvents   = "event stream"
	kindInfo     = "info"
	kindPing     = "ping"
)

// proxy stands between a berth and the engine, and counts what is asked. It
// changes nothing.
type proxy struct {
	host   string // its address, as DOCKER_HOST has it
	engine string // the engine's socket
	ln     net.Listener
	conns  sync.WaitGroup

	mu       sync.Mutex
	open     map[net.Conn]bool
	calls    map[string]int // by kind
	inspects map[string]int // by container ID
	lastList time.Time      // of containers
}

func newProxy(path, engine string) (*proxy, error) {
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for the proxy: %w", err)
	}
	p := &proxy{
		host: "unix://" + path, engine: engine, ln: ln, open: make(map[net.Conn]bool),
		calls: make(map[string]int), inspects: make(map[string]int),
	}
	p.conns.Go(func() {
		for {
			client, err := ln.Accept()
			if err != nil {
				return
			}
			p.conns.Go(func() { p.serve(client) })
		}
	})
	return p, nil
}

// close ends all connections. p may be nil.
func (p *proxy) close() {
	if p == nil {
		return
	}
	p.ln.Close()
	p.mu.Lock()
	for c := range p.open {
		c.Close()
	}
	p.open = nil
	p.mu.Unlock()
	p.conns.Wait()
}

// keep remembers connections that close is to close, unless it has been called.
func (p *proxy) keep(cs ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range cs {
		if p.open == nil {
			c.Close()
			continue
		}
		p.open[c] = true
	}
	return p.open != nil
}

// serve passes on the requests of one connection and, byte by byte, the answers.
func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	engine, err := net.Dial("unix", p.engine)
	if err != nil {
		return
	}
	defer engine.Close()
	if !p.keep(client, engine) {
		return
	}
	defer func() {
		p.mu.Lock()
		delete(p.open, client)
		delete(p.open, engine)
		p.mu.Unlock()
	}()
	var answers sync.WaitGroup
	answers.Go(func() {
		io.Copy(client, engine) // ends when either side does
		client.Close()
	})
	requests := bufio.NewReader(client)
	for {
		req, err := http.ReadRequest(requests)
		if err != nil {
			break
		}
		p.count(req.Method, req.URL.Path, time.Now())
		if err := req.Write(engine); err != nil {
			break
		}
	}
	engine.Close()
	answers.Wait()
}

var (
	versionPrefix = regexp.MustCompile(`^/v[0-9.]+/`)
	inspectPath   = regexp.MustCompile(`^/containers/([^/]+)/json$`)
)

// kindOf returns what kind of call a request is, and the container that it is
// about, if it is an inspect.
func kindOf(method, path string) (kind, id string) {
	path = versionPrefix.ReplaceAllString(path, "/")
	if path == "/_ping" {
		return kindPing, ""
	}
	if method != http.MethodGet {
		return method + " " + path, ""
	}
	switch path {
	case "/containers/json":
		return kindList, ""
	case "/networks":
		return kindNetworks, ""
	case "/events":
		return kindEvents, ""
	case "/info":
		return kindInfo, ""
	}
	if m := inspectPath.FindStringSubmatch(path); m != nil {
		return kindInspect, m[1]
	}
	return method + " " + path, ""
}

func (p *proxy) count(method, path string, at time.Time) {
	kind, id := kindOf(method, path)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls[kind]++
	switch kind {
	case kindInspect:
		p.inspects[id]++
	case kindList:
		p.lastList = at
	}
}

// counted returns how many calls of each kind there were.
func (p *proxy) counted() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.calls)
}

// inspectsOf returns how often these containers were inspected.
func (p *proxy) inspectsOf(ids ...string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, id := range ids {
		n += p.inspects[id]
	}
	return n
}

// listed returns when containers were listed last.
func (p *proxy) listed() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastList
}

var errDisagree = errors.New("berth's own counters and the proxy's differ")
