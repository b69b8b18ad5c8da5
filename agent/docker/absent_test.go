package docker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// answering makes an engine that answers an inspect of an ID as said, and returns a
// client of it, and what gives the paths that were asked for.
func answering(t *testing.T, answer func(w http.ResponseWriter, id string)) (*Engine, func() []string) {
	rec := &recorded{release: "20.10", api: "1.41", answer: func(w http.ResponseWriter, r *http.Request) bool {
		_, rest, ok := strings.Cut(r.URL.Path, "/containers/")
		id, isInspect := strings.CutSuffix(rest, "/json")
		if ok && isInspect {
			w.Header().Set("Content-Type", "application/json")
			answer(w, id)
		}
		return ok && isInspect
	}}
	return connect(t, rec.serve(t)), func() (asked []string) {
		for _, r := range rec.seen() {
			asked = append(asked, r.URL.Path)
		}
		return asked
	}
}

func sayGone(w http.ResponseWriter, id string) {
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprintf(w, `{"message":"No such container: %s"}`+"\n", id)
}

func manyIDs(n int) (ids []string) {
	for i := range n {
		ids = append(ids, fmt.Sprintf("%064x", i+1))
	}
	return ids
}

// All are asked once each, in order, over one connection; more than fit into a window.
func TestAbsent(t *testing.T) {
	for _, n := range []int{0, 1, absentWindow, absentWindow + 1, 5*absentWindow + 3} {
		e, asked := answering(t, sayGone)
		ids := manyIDs(n)
		if got := e.Absent(t.Context(), ids); len(got) != n || slices.Contains(got, false) {
			t.Fatalf("of %d: got %v, want that all are gone", n, got)
		}
		var want []string
		for _, id := range ids {
			want = append(want, "/containers/"+id+"/json")
		}
		if got := asked(); !slices.Equal(got, want) {
			t.Errorf("of %d: got %d questions, want one for each, in their order", n, len(got))
		}
	}
}

// In a session with a stream, it speaks the version that was agreed on.
func TestAbsent_Version(t *testing.T) {
	e, asked := answering(t, sayGone)
	ctx, cancel := context.WithCancel(t.Context())
	events, errs := e.Events(ctx, time.Now())
	receive(t, events, errs)
	e.Absent(ctx, manyIDs(1))
	cancel()
	ended(t, events, errs)
	if got, want := asked(), "/v1.41/containers/"+manyIDs(1)[0]+"/json"; !slices.Contains(got, want) {
		t.Errorf("got %q, want %s among them", got, want)
	}
}

// One container that is there, or one answer that proves nothing, is no answer for that
// one, and in no way one for its neighbours.
func TestAbsent_OnlyTheEnginesWordIsAProof(t *testing.T) {
	ids := manyIDs(9)
	odd := ids[4]
	status := func(code int, body string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			w.WriteHeader(code)
			io.WriteString(w, body)
		}
	}
	for name, answer := range map[string]func(http.ResponseWriter){
		"it is there":            status(200, `{"Id":"`+odd+`"}`),
		"it is there, at length": status(200, `{"Id":"`+odd+`","Env":"`+strings.Repeat("x", 1<<16)+`"}`),
		"its name says so":       status(200, `{"message":"No such container: `+odd+`"}`),
		"a conflict":             status(409, `{"message":"No such container: `+odd+`"}`),
		"an error":               status(500, `{"message":"No such container: `+odd+`"}`),
		"another's page":         status(404, "404 page not found\n"),
		"nothing":                status(404, ""),
		"another container":      status(404, `{"message":"No such container: `+ids[5]+`"}`),
	} {
		t.Run(name, func(t *testing.T) {
			e, _ := answering(t, func(w http.ResponseWriter, id string) {
				if id == odd {
					answer(w)
					return
				}
				sayGone(w, id)
			})
			for i, gone := range e.Absent(t.Context(), ids) {
				if want := ids[i] != odd; gone != want {
					t.Errorf("container %d: got gone: %v, want %v", i+1, gone, want)
				}
			}
		})
	}
}

// An answer that is not understood, or none, ends it: nobody can tell where the next one
// begins. What was answered before counts.
func TestAbsent_EndsWithWhatIsNotUnderstood(t *testing.T) {
	ids := manyIDs(9)
	good := func(id string) string {
		body := `{"message":"No such container: ` + id + `"}`
		return fmt.Sprintf("HTTP/1.1 404 Not Found\r\ncontent-length: %d\r\n\r\n%s", len(body), body)
	}
	for name, odd := range map[string]string{
		"the end":                   "",
		"an old version":            strings.Replace(good(ids[4]), "1.1", "1.0", 1),
		"no HTTP":                   "hello\r\n",
		"no length":                 "HTTP/1.1 404 Not Found\r\n\r\n" + good(ids[4]),
		"two lengths":               strings.Replace(good(ids[4]), "content", "Content-Length: 3\r\ncontent", 1),
		"a length that is none":     "HTTP/1.1 404 Not Found\r\nContent-Length: x\r\n\r\n" + good(ids[4]),
		"less than nothing":         "HTTP/1.1 404 Not Found\r\nContent-Length: -1\r\n\r\n" + good(ids[4]),
		"too much":                  "HTTP/1.1 404 Not Found\r\nContent-Length: 5000\r\n\r\nNo such container: " + ids[4] + strings.Repeat(" ", 5000),
		"in parts":                  "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"in parts, with a length":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"in parts, with more after": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n",
		"the last one":              strings.Replace(good(ids[4]), "content", "Connection: close\r\ncontent", 1),
		"a line without its end":    "HTTP/1.1 404 Not Found\n",
		"an endless line":           "HTTP/1.1 404 " + strings.Repeat("x", 1<<16) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				in := bufio.NewReader(conn)
				for i := range ids {
					if _, err := http.ReadRequest(in); err != nil {
						return
					}
					out := good(ids[i])
					if i == 4 {
						out = odd
					}
					if io.WriteString(conn, out); out == "" {
						return
					}
				}
				io.Copy(io.Discard, in)
			}()
			e := connect(t, "unix://"+path)
			got := e.Absent(t.Context(), ids)
			if want := []bool{true, true, true, true, false, false, false, false, false}; !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			ln.Close()
			<-done
		})
	}
}

// Nobody waits longer than ctx allows, and there need not be an engine.
func TestAbsent_Ends(t *testing.T) {
	stuck := make(chan struct{})
	e, _ := answering(t, func(http.ResponseWriter, string) { <-stuck })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if got := e.Absent(ctx, manyIDs(3)); slices.Contains(got, true) {
		t.Errorf("an engine that does not answer: got %v", got)
	}
	close(stuck)
	if got := connect(t, "unix://"+filepath.Join(t.TempDir(), "none")).Absent(t.Context(), manyIDs(3)); slices.Contains(got, true) {
		t.Errorf("no engine: got %v", got)
	}
	// One that is far away is for Inspect alone.
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { t.Error("it was asked") }))
	defer far.Close()
	if got := connect(t, "tcp://"+far.Listener.Addr().String()).Absent(t.Context(), manyIDs(3)); slices.Contains(got, true) {
		t.Errorf("an engine over TCP: got %v", got)
	}
}
