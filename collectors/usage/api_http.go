package usage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ServeHTTP answers GET requests below /v1/usage/ (with or without that prefix)
// with JSON:
//
//	report?ref=<ref>&hours=<bool>  Report
//	ended                          []EndedRun
//	explain?container=<ref>        []agent.Reason
//
// With ref, it is about one service and its containers, or about one container
// (by name, ID, or the beginning of an ID) and its service; Sums and Host are of
// all of the host nevertheless. With hours=true, services have their hours.
//
// An error is {"error": "…"}: 400 for a bad request, 404 for something that this
// host does not have, 409 for an ambiguous reference, and 503 while there are no
// statistics.
func (u *Usage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		writeJSON(w, http.StatusMethodNotAllowed, apiError{fmt.Sprintf("method %s is not possible here", r.Method)})
		return
	}
	switch path.Base(r.URL.Path) {
	case "ended":
		writeJSON(w, http.StatusOK, u.Ended())
		return
	case "explain":
		if reasons, ok := u.reasons(r.URL.Query().Get("container")); ok {
			writeJSON(w, http.StatusOK, reasons)
			return
		}
		writeJSON(w, http.StatusNotFound, apiError{"no container, or several, are called that"})
		return
	}
	report, err := u.answer(r)
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, report)
	case errors.Is(err, errBadRequest):
		writeJSON(w, http.StatusBadRequest, apiError{err.Error()})
	case errors.Is(err, errAmbiguous):
		writeJSON(w, http.StatusConflict, apiError{err.Error()})
	case errors.Is(err, errNoStatistics):
		writeJSON(w, http.StatusServiceUnavailable, apiError{err.Error()})
	default:
		writeJSON(w, http.StatusNotFound, apiError{err.Error()})
	}
}

var (
	errBadRequest   = errors.New("bad request")
	errNoPath       = errors.New("there are report, ended and explain")
	errNoStatistics = errors.New("no statistics are kept")
	errNotFound     = errors.New("nothing that was measured is called")
	errAmbiguous    = errors.New("more than one container is called")
)

// apiError is the answer to a request that failed.
type apiError struct {
	Error string `json:"error"`
}

func (u *Usage) answer(r *http.Request) (*Report, error) {
	if path.Base(r.URL.Path) != "report" {
		return nil, errNoPath
	}
	query := r.URL.Query()
	hours := false
	if text := query.Get("hours"); text != "" {
		var err error
		if hours, err = strconv.ParseBool(text); err != nil {
			return nil, fmt.Errorf("%w: hours=%s: give true or false", errBadRequest, text)
		}
	}
	b, ok := u.book.(reporter)
	if !ok {
		return nil, errNoStatistics
	}
	report := b.Report(time.Now(), hours)
	report.complete()
	if query.Has("ref") {
		if err := report.Only(query.Get("ref")); err != nil {
			return nil, err
		}
	}
	return &report, nil
}

// Only leaves in the report what a reference means: a service with its
// containers, or else a container (by name, ID, or the beginning of an ID) with its
// service.
func (r *Report) Only(ref string) error {
	of := func(service string) func(Row) bool {
		return func(w Row) bool { return w.Service != service }
	}
	if slices.ContainsFunc(r.Services, func(w Row) bool { return w.Service == ref }) {
		r.Services = slices.DeleteFunc(r.Services, of(ref))
		r.Containers = slices.DeleteFunc(r.Containers, of(ref))
		return nil
	}
	var found []Row
	for _, w := range r.Containers {
		if w.Container == ref {
			found = []Row{w}
			break
		}
		if ref != "" && strings.HasPrefix(w.ContainerID, ref) {
			found = append(found, w)
		}
	}
	switch len(found) {
	case 0:
		return fmt.Errorf("%w %q: see `berth usage` and `berth usage --containers`", errNotFound, ref)
	case 1:
	default:
		return fmt.Errorf("%w %q: give more of the ID", errAmbiguous, ref)
	}
	r.Containers = found
	r.Services = slices.DeleteFunc(r.Services, func(w Row) bool {
		c := &found[0]
		return w.Service != c.Service || w.Environment != c.Environment || w.InstanceType != c.InstanceType
	})
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // a figure that is no number: a mistake of ours, to be seen
		status = http.StatusInternalServerError
		b.Reset()
		_ = enc.Encode(apiError{fmt.Sprintf("the answer cannot be written: %v", err)})
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // only the client's going away can fail it
}
