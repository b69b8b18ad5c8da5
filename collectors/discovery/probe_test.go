package discovery

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// addrOf returns the address of a server on loopback.
func addrOf(a net.Addr) netip.AddrPort { return netip.MustParseAddrPort(a.String()) }

// probing returns what a check of an address says, "" when it passes.
func probing(t *testing.T, target netip.AddrPort, path string, timeout time.Duration) string {
	t.Helper()
	s := newScheduler(1, netProber(), func() {}, nil)
	o := s.try(t.Context(), &job{target: target, check: &check{path: path, timeout: timeout}})
	if o.took <= 0 || o.took > timeout+5*time.Second {
		t.Errorf("%s: took %v, with a time-out of %v", path, o.took, timeout)
	}
	return o.why
}

// patient is a time-out that no check here runs into, brief one that those do
// which have to.
const (
	patient = 10 * time.Second
	brief   = 50 * time.Millisecond
)

func TestProbeHTTP(t *testing.T) {
	release := make(chan struct{})
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		t.Error("a redirect to another place is followed")
	}))
	defer elsewhere.Close()
	mux := http.NewServeMux()
	status := func(path string, code int) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
	}
	status("/ok", 200)
	status("/empty", 204)
	status("/unchanged", 304)
	status("/missing", 404)
	status("/broken", 500)
	status("/odd", 799)
	mux.HandleFunc("/query", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.RawQuery != "deep=1" || r.UserAgent() != "berth" || r.Host == "" {
			http.Error(w, "bad", http.StatusBadRequest)
		}
	})
	mux.Handle("/moved", http.RedirectHandler("/ok", http.StatusMovedPermanently))
	mux.Handle("/away", http.RedirectHandler(elsewhere.URL, http.StatusFound))
	mux.Handle("/secure", http.RedirectHandler("https://127.0.0.1/", http.StatusFound))
	mux.Handle("/round", http.RedirectHandler("/round", http.StatusFound))
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/half", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/short", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "less")
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(release)
	target := addrOf(server.Listener.Addr())

	for _, test := range []struct {
		path    string
		timeout time.Duration
		want    string
	}{
		{"/ok", patient, ""},
		{"/empty", patient, ""},
		{"/query?deep=1", patient, ""},
		{"/endless", patient, ""},
		{"/moved", patient, ""},
		{"/unchanged", patient, "answered 304 Not Modified: a check follows no redirect to another place"},
		{"/missing", patient, "answered 404 Not Found"},
		{"/broken", patient, "answered 500 Internal Server Error"},
		{"/odd", patient, "answered 799 "},
		{"/away", patient, "answered 302 Found: a check follows no redirect to another place"},
		{"/secure", patient, "answered 302 Found: a check follows no redirect to another place"},
		{"/round", patient, "answered 302 Found: a check follows no redirect to another place"},
		{"/short", patient, "the connection was closed before the end of the answer"},
		{"/slow", brief, "no answer within 50ms"},
		{"/half", brief, "no answer within 50ms"},
	} {
		if got := probing(t, target, test.path, test.timeout); got != test.want {
			t.Errorf("%s: got %q, want %q", test.path, got, test.want)
		}
	}
}

// The standard library's own rule spares loopback, so that no server of a test
// would notice a proxy.
func TestProbeUsesNoProxy(t *testing.T) {
	if got := checkClient(new(net.Dialer)).Transport.(*http.Transport).Proxy; got != nil {
		t.Error("got a proxy, want none")
	}
}

// serve answers each connection to a listener by hand.
func serve(t *testing.T, answer func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answer(conn)
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return addrOf(l.Addr())
}

func TestProbeHTTPOfOtherServers(t *testing.T) {
	for name, test := range map[string]struct {
		answer string
		want   string // a part of it
	}{
		"says nothing":          {"", "the connection was closed before the end of the answer"},
		"speaks something else": {"220 mail ESMTP\r\n", "malformed HTTP"},
		"endless header":        {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 2*maxCheckHeader), "exceeded"},
	} {
		target := serve(t, func(conn net.Conn) {
			_, _ = bufio.NewReader(conn).ReadString('\n')
			_, _ = io.WriteString(conn, test.answer)
		})
		if got := probing(t, target, "/", patient); !strings.Contains(got, test.want) || strings.Contains(got, "http://") {
			t.Errorf("%s: got %q, want %q in it", name, got, test.want)
		}
	}
}

func TestProbeTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := addrOf(l.Addr())
	if got := probing(t, target, "", patient); got != "" {
		t.Errorf("listening: got %q, want a pass", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	const refused = "connection refused"
	if got := probing(t, target, "", patient); got != refused {
		t.Errorf("closed: got %q, want %q", got, refused)
	}
	if got := probing(t, target, "/", patient); got != refused {
		t.Errorf("a GET of it: got %q, want %q", got, refused)
	}
}

// A check that is under way when berth ends ends with it.
func TestProbeEndsWithItsContext(t *testing.T) {
	began := make(chan struct{}, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		began <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() { failed <- netProber()(ctx, addrOf(server.Listener.Addr()), "/") }()
	<-began
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it cancelled", err)
	}
}

func TestExplainFailure(t *testing.T) {
	op := &net.OpError{Op: "read", Net: "tcp", Source: &net.TCPAddr{Port: 43210}, Err: errors.New("connection reset by peer")}
	for _, test := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("get: %w", context.DeadlineExceeded), "no answer within 2s"},
		{fmt.Errorf("get: %w", op), "connection reset by peer"},
		{fmt.Errorf("get: %w", io.EOF), "the connection was closed before the end of the answer"},
		{statusError(503), "answered 503 Service Unavailable"},
		{errors.New("odd"), "odd"},
	} {
		if got := explainFailure(test.err, 2*time.Second); got != test.want {
			t.Errorf("%v: got %q, want %q", test.err, got, test.want)
		}
	}
}
