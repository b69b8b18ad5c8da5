// Package serve runs the HTTP server of a sample application: it answers
// /health, logs one line when it listens, and stops when its context ends.
package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// HTTP serves h on the TCP address addr until ctx ends, which is no error. To
// h's own paths it adds /health, which answers 200.
func HTTP(ctx context.Context, addr string, h *http.ServeMux) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	h.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "ok")
	})
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	// Close, not Shutdown: a sample has nothing to finish, and a stopping
	// container that lingers would slow down every test.
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	fmt.Println("listening on", l.Addr())
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

// JSON answers a request with v.
func JSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v) // the client has gone away, if this fails
}

// Instance returns the name by which an answer says who gave it: the host
// name, which in a container is the start of the container's ID.
func Instance() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}
