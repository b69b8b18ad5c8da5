package fakedocker

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What the engine says of itself.
const (
	engineID      = "ZQDR:SQP4:RLI6:NFBB:NHAF:6VCQ:LHZ3:EZTC:ZAYR:D7HT:VLHQ:RNAI"
	engineVersion = "20.10.24"
	apiMinor      = 41 // of API 1.41
)

// infoTemplate is a recorded answer to GET /info, of which a few fields are
// replaced by the model's.
//
//go:embed testdata/info.json
var infoTemplate []byte

var versioned = regexp.MustCompile(`^/v1\.(\d+)(/.*)$`)

// serve answers one request.
func (e *Engine) serve(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Ostype", "linux")
	head.Set("Server", "Docker/"+engineVersion+" (linux)")
	e.frozen(r.Context())
	if r.Context().Err() != nil {
		return
	}
	path := r.URL.Path
	if m := versioned.FindStringSubmatch(path); m != nil {
		if minor, err := strconv.Atoi(m[1]); err != nil || minor > apiMinor {
			e.violate(w, r, http.StatusBadRequest, fmt.Sprintf("client version 1.%s is too new. Maximum supported API version is 1.%d", m[1], apiMinor))
			return
		}
		path = m[2]
	}
	head.Set("Api-Version", fmt.Sprintf("1.%d", apiMinor))
	head.Set("Docker-Experimental", "false")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		e.violate(w, r, http.StatusMethodNotAllowed, "berth only reads")
		return
	}
	e.mu.Lock()
	status, message := e.faults.status, e.faults.message
	e.mu.Unlock()
	if status != 0 && path != "/_ping" { // which the real engine answers whatever else fails
		refuse(w, status, message)
		return
	}
	id, isInspect := strings.CutPrefix(path, "/containers/")
	id, hasJSON := strings.CutSuffix(id, "/json")
	switch {
	case path == "/_ping":
		e.count(path)
		head.Set("Cache-Control", "no-cache, no-store, must-revalidate")
		head.Set("Pragma", "no-cache")
		_, _ = w.Write([]byte("OK"))
	case path == "/info":
		e.answer(w, r, path, nil, e.info)
	case path == "/networks":
		e.answer(w, r, path, []string{"filters"}, e.listNetworks)
	case path == "/containers/json":
		e.answer(w, r, path, []string{"all", "filters"}, e.list)
	case path == "/events":
		e.count(path)
		e.stream(w, r)
	case isInspect && hasJSON && !strings.Contains(id, "/"):
		e.answer(w, r, "/containers/{id}/json", nil, func(url.Values) (any, error) { return e.inspect(id) })
	default:
		e.violate(w, r, http.StatusNotFound, "page not found")
	}
}

// apiError is an answer that is no success.
type apiError struct {
	status  int
	message string
}

func (e *apiError) Error() string { return e.message }

// answer writes what get returns as JSON. Parameters other than those known are
// refused; "filters" must be empty.
func (e *Engine) answer(w http.ResponseWriter, r *http.Request, path string, known []string, get func(url.Values) (any, error)) {
	e.count(path)
	query := r.URL.Query()
	for name := range query {
		if !slices.Contains(known, name) || name == "filters" && query.Get(name) != "{}" {
			e.violate(w, r, http.StatusBadRequest, "unknown parameter "+name+"="+query.Get(name))
			return
		}
	}
	e.mu.Lock()
	v, err := get(query)
	var raw []byte
	if err == nil {
		raw, err = json.Marshal(v)
	}
	e.mu.Unlock()
	if err != nil {
		status := http.StatusInternalServerError
		if said, ok := err.(*apiError); ok {
			status = said.status
		}
		refuse(w, status, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(raw, '\n'))
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": message})
}

func (e *Engine) count(path string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.calls[path]++
}

// violate notes a request that should not have been made, and refuses it.
func (e *Engine) violate(w http.ResponseWriter, r *http.Request, status int, message string) {
	e.mu.Lock()
	e.violations = append(e.violations, fmt.Sprintf("%s %s: %s", r.Method, r.URL, message))
	e.mu.Unlock()
	refuse(w, status, message)
}

func (e *Engine) info(url.Values) (any, error) {
	var info map[string]any
	if err := json.Unmarshal(infoTemplate, &info); err != nil {
		return nil, err
	}
	counts := make(map[string]int)
	for _, c := range e.containers {
		counts[c.status]++
	}
	info["ID"], info["ServerVersion"] = engineID, engineVersion
	info["DockerRootDir"] = e.root
	info["Containers"] = len(e.containers)
	info["ContainersRunning"], info["ContainersPaused"] = counts["running"], counts["paused"]
	info["ContainersStopped"] = counts["exited"] + counts["created"]
	info["SystemTime"] = time.Now().UTC().Format(time.RFC3339Nano)
	return info, nil
}

// stream answers /events. Like the real engine it sends its headers first and
// subscribes then.
func (e *Engine) stream(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	since, err := parseSince(query.Get("since"))
	if err != nil {
		e.violate(w, r, http.StatusBadRequest, err.Error())
		return
	}
	f, err := parseFilters(query.Get("filters"))
	if err != nil {
		e.violate(w, r, http.StatusBadRequest, err.Error())
		return
	}
	for name := range query {
		if name != "since" && name != "filters" {
			e.violate(w, r, http.StatusBadRequest, "unknown parameter "+name)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w).Flush
	if flush() != nil {
		return
	}
	e.mu.Lock()
	sub, past := e.bus.subscribe(since, f)
	e.mu.Unlock()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.bus.readers, sub)
	}()
	out := json.NewEncoder(w)
	send := func(ev event) bool {
		e.frozen(r.Context())
		return out.Encode(ev) == nil && flush() == nil
	}
	for _, ev := range past {
		if !send(ev) {
			return
		}
	}
	for {
		select {
		case ev := <-sub.queue:
			if !send(ev) {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// parseSince reads seconds and nanoseconds, as in 1795233238.000000001.
func parseSince(text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	sec, nsec, _ := strings.Cut(text, ".")
	s, err := strconv.ParseInt(sec, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("since=%s is no time", text)
	}
	n := int64(0)
	if nsec != "" {
		if n, err = strconv.ParseInt(nsec, 10, 64); err != nil || len(nsec) != 9 {
			return time.Time{}, fmt.Errorf("since=%s: nine digits make nanoseconds", text)
		}
	}
	return time.Unix(s, n), nil
}

// The values that a filter of /events may have here: a misspelt one, which the
// real engine takes for something that never happens, is refused.
var (
	knownTypes   = []string{"container", "network"}
	knownActions = []string{
		"create", "start", "kill", "die", "stop", "restart", "destroy", "pause", "unpause",
		"rename", "update", "health_status", "connect", "disconnect", "oom",
	}
)

func parseFilters(text string) (filter, error) {
	var f filter
	if text == "" {
		return f, nil
	}
	var in map[string]map[string]bool
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return f, fmt.Errorf("filters: %w", err)
	}
	for key, values := range in {
		into, known := &f.types, knownTypes
		switch key {
		case "type":
		case "event":
			into, known = &f.actions, knownActions
		default:
			return f, fmt.Errorf("filters: unknown key %s", key)
		}
		for v := range values {
			if !slices.Contains(known, v) {
				return f, fmt.Errorf("filters: unknown %s %s", key, v)
			}
			*into = append(*into, v)
		}
	}
	return f, nil
}
