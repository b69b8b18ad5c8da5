package cli

import (
	"regexp"
	"strings"
	"testing"
)

// colours names the escape sequences (ECMA-48 SGR) that berth uses.
var colours = map[string]string{
	"0": "/", "1": "bold", "2": "dim", "31": "red", "32": "green", "33": "yellow", "1;31": "bold red",
}

var (
	sgr       = regexp.MustCompile("\x1b\\[([0-9;]*)m")
	timestamp = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)`)
	age       = regexp.MustCompile(`\b(\d+d\d\dh|\d+h\d\dm|\d+m\d\ds|\d+s)\b( *)`)
	pid       = regexp.MustCompile(`(\bpid"?:? )\d+`)
	local     = regexp.MustCompile(`\b(127\.0\.0\.\d+|172\.\d+\.0\.1):\d+`)
	counts    = regexp.MustCompile(`\d+ (answers|series|scrapes)`)
	// What the loop has asked of the engine so far, and the number of its
	// snapshot, depend on how events and lists fall together.
	figures = regexp.MustCompile(`("(?i:events|lists|networklists|network_lists|inspects|connects|stale|contradictions|snapshot)": )\d+`)
	// Of a host whose cores and containers are not the test's.
	measured = regexp.MustCompile(`the first measurement is to come|\d+ containers reserve [^"\n]*`)
	golang   = regexp.MustCompile(`go1\.\d+(\.\d+)?[^",) ]*`)
	arch     = regexp.MustCompile(`amd64|arm64`)
)

// normal replaces what differs from run to run by its kind. A column of ages
// keeps its width.
func normal(text, work string) string {
	text = sgr.ReplaceAllStringFunc(text, func(s string) string {
		code := sgr.FindStringSubmatch(s)[1]
		if name, ok := colours[code]; ok {
			return "{" + name + "}"
		}
		return "{?" + code + "}"
	})
	text = strings.ReplaceAll(text, work, "WORK")
	text = timestamp.ReplaceAllString(text, "TIME")
	text = age.ReplaceAllStringFunc(text, func(s string) string {
		spaces := len(s) - len(strings.TrimRight(s, " "))
		if spaces < 2 {
			return "AGE" + s[len(s)-spaces:]
		}
		return "AGE" + strings.Repeat(" ", max(2, len(s)-len("AGE")))
	})
	text = pid.ReplaceAllString(text, "${1}PID")
	text = local.ReplaceAllStringFunc(text, func(s string) string {
		addr, port, _ := strings.Cut(s, ":")
		if port == "5555" { // the fixture's
			return s
		}
		return addr + ":PORT"
	})
	text = counts.ReplaceAllString(text, "N $1")
	text = figures.ReplaceAllString(text, "${1}N")
	text = measured.ReplaceAllString(text, "MEASURED")
	text = golang.ReplaceAllString(text, "GOVERSION")
	return arch.ReplaceAllString(text, "ARCH")
}

func TestNormal(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"\x1b[1mhost\x1b[0m", "{bold}host{/}"},
		{"\x1b[7mx", "{?7}x"},
		{"up 3s, ready", "up AGE, ready"},
		{"up 12m05s", "up AGE"},
		{"running  0s     0", "running  AGE    0"},
		{"running  1h02m  0", "running  AGE    0"},
		{`"pid": 12,`, `"pid": PID,`},
		{"pid 12,", "pid PID,"},
		{"/tmp/x/berth.sock", "WORK/berth.sock"},
		{`"2026-01-02T03:04:05.6Z"`, `"TIME"`},
		{"on 127.0.0.1:4711, 172.17.0.1:53; 12 answers", "on 127.0.0.1:PORT, 172.17.0.1:PORT; N answers"},
		{"AGE  the first measurement is to come", "AGE  MEASURED"},
		{`"summary": "2 containers reserve 0.50 of 2 cores and use 0.1"`, `"summary": "MEASURED"`},
		{"node-1s2", "node-1s2"},
	} {
		if got := normal(tc.in, "/tmp/x"); got != tc.want {
			t.Errorf("%q: got %q, want %q", tc.in, got, tc.want)
		}
	}
}
