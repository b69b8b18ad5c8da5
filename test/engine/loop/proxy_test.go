package loop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/test/engine/enginetest"
)

// proxy stands between berth and an engine, and spoils some of its answers.
type proxy struct {
	host    string                                                        // its address, as DOCKER_HOST has it
	spoil   atomic.Pointer[func(w http.ResponseWriter, path string) bool] // answers by itself, or says no
	edit    atomic.Pointer[func(path string, body []byte) []byte]         // changes the body of an answer
	streams atomic.Uint64                                                 // event streams that were asked for
}

func newProxy(t *testing.T, engine string) *proxy {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "p.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(engine, "unix://"))
	}}
	p := &proxy{host: "unix://" + socket}
	rp := &httputil.ReverseProxy{
		Transport:     transport,
		FlushInterval: -1, // events are not to wait
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "engine"}) },
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		ModifyResponse: func(resp *http.Response) error {
			edit := p.edit.Load()
			if edit == nil || strings.HasSuffix(resp.Request.URL.Path, "/events") {
				return nil
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil {
				return err
			}
			resp.Body.Close()
			body = (*edit)(resp.Request.URL.Path, body)
			resp.Body = io.NopCloser(bytes.NewReader(body))
			resp.ContentLength = int64(len(body))
			resp.Header.Set("Content-Length", strconv.Itoa(len(body)))
			return nil
		},
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/events") {
			p.streams.Add(1)
		}
		if spoil := p.spoil.Load(); spoil != nil && (*spoil)(w, r.URL.Path) {
			return
		}
		defer func() { recover() }() // a stream that is cut is a panic of the proxy's, for the server
		rp.ServeHTTP(w, r)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		srv.Serve(ln)
	}()
	t.Cleanup(func() {
		srv.Close()
		<-done
		transport.CloseIdleConnections()
	})
	return p
}

func (p *proxy) honest() { p.spoil.Store(nil); p.edit.Store(nil) }

// spoilLists makes every list of containers fail or lie in one way.
func (p *proxy) spoilLists(how string) {
	isList := func(path string) bool { return strings.HasSuffix(path, "/containers/json") }
	spoil := func(w http.ResponseWriter, path string) bool {
		switch {
		case !isList(path):
			return false
		case how == "503":
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"message":"the engine is starting"}`)
		case how == "empty":
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, "[]")
		case how == "null":
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, "null")
		default:
			return false
		}
		return true
	}
	edit := func(path string, body []byte) []byte {
		if !isList(path) {
			return body
		}
		switch how {
		case "cut":
			return body[:len(body)/2]
		case "partial": // half of the rows, in valid JSON
			var rows []json.RawMessage
			if json.Unmarshal(body, &rows) != nil {
				return body
			}
			body, _ = json.Marshal(rows[:len(rows)/2])
		}
		return body
	}
	p.spoil.Store(&spoil)
	p.edit.Store(&edit)
}

// A list that fails, is empty, or is cut short takes no name out of DNS, however
// often it is repeated.
func TestPitfall_discovery14_BadListDeletesNothing(t *testing.T) {
	t.Parallel() // it waits, mostly
	e := enginetest.Outer(t)
	p := newProxy(t, e.Host)
	name, labels := service(e, "web")
	all := e.StartContainers(t, 4, func(int) enginetest.Spec { return web(labels) })
	var want []uint16
	for _, c := range all {
		want = append(want, at(t, c))
	}
	b := startBerth(t, p.host, "loop.resync=1s")
	b.awaitSRV(t, name, want...)
	for _, how := range []string{"503", "empty", "null", "cut", "partial"} {
		t.Run(how, func(t *testing.T) {
			stop := b.watch(t, name)
			p.spoilLists(how)
			lists := b.status(t).Engine.Asked.Lists
			b.awaitStatus(t, "three more lists", func(st admin.Status) error {
				if n := st.Engine.Asked.Lists - lists; n < 3 {
					return fmt.Errorf("%d", n)
				}
				return nil
			})
			b.wantSRV(t, "after three bad lists", name, want...)
			wantAlwaysThere(t, name, stop)
			p.honest()
			b.awaitReady(t)
			b.wantSRV(t, "after an honest list", name, want...)
		})
	}
}

// Before the first list that succeeds, berth knows nothing and says so: it does
// not answer that a name does not exist.
func TestPitfall_discovery14_NoListNoAnswer(t *testing.T) {
	t.Parallel() // it waits, mostly
	e := enginetest.Outer(t)
	p := newProxy(t, e.Host)
	name, labels := service(e, "web")
	c := e.StartContainer(t, web(labels))
	p.spoilLists("503")
	b := newBerth(t, p.host)
	b.start(t)
	b.awaitStatus(t, "two lists have failed", func(st admin.Status) error {
		if st.Engine.Asked.Lists < 3 {
			return fmt.Errorf("%d lists", st.Engine.Asked.Lists)
		}
		return nil
	})
	st := b.status(t)
	if st.Ready || st.Engine.Complete {
		t.Errorf("without a list: got ready %v, complete %v, want neither", st.Ready, st.Engine.Complete)
	}
	if answer, err := b.ask(t.Context(), name, dns.TypeSRV); err != nil || answer.Rcode == dns.RcodeNameError {
		t.Errorf("without a list, the answer about %s: got %v, %v, want no denial", name, answer, err)
	}
	p.honest()
	b.awaitReady(t)
	b.awaitSRV(t, name, at(t, c))
}

// A stream that ends as soon as it began is as bad as an engine that is away.
func TestPitfall_discovery05_StreamThatEndsAtOnce(t *testing.T) {
	t.Parallel() // it waits, mostly
	e := enginetest.Outer(t)
	p := newProxy(t, e.Host)
	name, labels := service(e, "web")
	c := e.StartContainer(t, web(labels))
	b := startBerth(t, p.host)
	b.awaitSRV(t, name, at(t, c))

	eof := func(w http.ResponseWriter, path string) bool { return strings.HasSuffix(path, "/events") }
	p.spoil.Store(&eof)
	stop := b.watch(t, name)
	b.stop(t) // its stream is a new one from now on
	stop()
	began, streams := time.Now(), p.streams.Load()
	b.start(t)
	st := b.awaitStatus(t, "five streams have ended", func(st admin.Status) error {
		if st.Engine.Asked.Connects < 6 {
			return fmt.Errorf("%d connects", st.Engine.Asked.Connects)
		}
		return nil
	})
	if got, most := p.streams.Load()-streams, maxConnects(time.Since(began)); got > most {
		t.Errorf("streams in %v: got %d, want at most %d", time.Since(began), got, most)
	}
	if used := b.cpu(t); used > 2*time.Second {
		t.Errorf("CPU time of %d connects: got %v, want less than 2s", st.Engine.Asked.Connects, used)
	}
	p.honest()
	b.awaitReady(t)
	b.awaitSRV(t, name, at(t, c))
}
