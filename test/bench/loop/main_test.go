package main

import (
	"context"
	"net"
	"net/http"
	"path/filepath"
	"testing"
)

func TestKindOf(t *testing.T) {
	for _, c := range []struct{ method, path, kind, id string }{
		{"HEAD", "/_ping", kindPing, ""},
		{"GET", "/v1.41/containers/json", kindList, ""},
		{"GET", "/containers/json", kindList, ""},
		{"GET", "/v1.41/networks", kindNetworks, ""},
		{"GET", "/v1.41/networks/abc", "GET /networks/abc", ""},
		{"GET", "/v1.41/events", kindEvents, ""},
		{"GET", "/v1.41/info", kindInfo, ""},
		{"GET", "/v1.41/containers/abc/json", kindInspect, "abc"},
		{"POST", "/v1.41/containers/abc/kill", "POST /containers/abc/kill", ""},
	} {
		if kind, id := kindOf(c.method, c.path); kind != c.kind || id != c.id {
			t.Errorf("%s %s: got %q, %q, want %q, %q", c.method, c.path, kind, id, c.kind, c.id)
		}
	}
}

// TestProxy: calls arrive, answers return, and both are counted once.
func TestProxy(t *testing.T) {
	dir := t.TempDir()
	engine, err := net.Listen("unix", filepath.Join(dir, "e"))
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte(r.URL.Path))
	})}
	go srv.Serve(engine)
	defer srv.Close()
	p, err := newProxy(filepath.Join(dir, "p"), filepath.Join(dir, "e"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "p"))
	}}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	for _, path := range []string{"/v1.41/containers/a/json", "/v1.41/containers/b/json", "/v1.41/containers/a/json", "/v1.41/containers/json"} {
		resp, err := client.Get("http://engine" + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
	if got := p.counted(); len(got) != 2 || got[kindInspect] != 3 || got[kindList] != 1 {
		t.Errorf("calls: got %v", got)
	}
	if a, both := p.inspectsOf("a"), p.inspectsOf("a", "b"); a != 2 || both != 3 {
		t.Errorf("inspects: got %d of a and %d of both, want 2 and 3", a, both)
	}
}
