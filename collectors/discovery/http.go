package discovery

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strconv"
)

// ServeHTTP answers GET requests below /v1/discovery/ (with or without that
// prefix) with JSON:
//
//	services                     []Service
//	explain?container=<ref>      Explanation
//	ports?ref=<ref>&port=<port>  []PortMapping; port is optional
//
// An error is {"error": "…"}: 400 for a bad request, 404 for something that
// this host does not have, 409 for an ambiguous reference, and 503 before the
// engine's containers are known.
func (d *Discovery) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		writeError(w, http.StatusMethodNotAllowed, fmt.Errorf("method %s is not possible here", r.Method))
		return
	}
	answer, err := d.answer(r)
	if err != nil {
		writeError(w, statusOf(err), err)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

var (
	errBadRequest = errors.New("bad request")
	errNoPath     = errors.New("there is services, explain and ports")
)

func (d *Discovery) answer(r *http.Request) (any, error) {
	query := r.URL.Query()
	switch path.Base(r.URL.Path) {
	case "services":
		if d.view.Load() == nil {
			return nil, errNotReady
		}
		return d.Services(), nil
	case "explain":
		ref := query.Get("container")
		if ref == "" {
			return nil, fmt.Errorf("%w: container is missing", errBadRequest)
		}
		return d.explanation(ref)
	case "ports":
		ref, port, err := query.Get("ref"), uint64(0), error(nil)
		if text := query.Get("port"); text != "" {
			port, err = strconv.ParseUint(text, 10, 16)
		}
		if ref == "" || err != nil {
			return nil, fmt.Errorf("%w: ref must be a container or service, and port a port", errBadRequest)
		}
		return d.Ports(ref, uint16(port))
	}
	return nil, errNoPath
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, errBadRequest):
		return http.StatusBadRequest
	case errors.Is(err, errAmbiguous):
		return http.StatusConflict
	case errors.Is(err, errNotReady), errors.Is(err, errUnread):
		return http.StatusServiceUnavailable
	default:
		return http.StatusNotFound
	}
}

func writeError(w http.ResponseWriter, status int, err error) {
	writeJSON(w, status, map[string]string{"error": err.Error()})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // only the client's going away can fail it
}
