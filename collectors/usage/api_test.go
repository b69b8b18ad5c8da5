package usage

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// telling is a book that only reports.
type telling struct {
	forget
	report func(hours bool) Report
}

func (b telling) Report(_ time.Time, hours bool) Report { return b.report(hours) }

func shopReport(hours bool) Report {
	sized := func(cores float64) *float64 { return &cores }
	bytes := uint64(256 << 20)
	r := Report{
		At: time.Unix(1_700_000_000, 0).UTC(), LearningHours: 24, Band: Band{Low: -0.1, High: 0.6},
		Services: []Row{
			{
				Service: "calc", Environment: "prod", Containers: 3,
				CPU:    CPU{Reserved: 2, Source: SourceOwn, Verdict: Oversized, Advice: sized(0.5), Reasons: []Reason{{CodeAbove, "it is"}}},
				Memory: Memory{Reserved: 64 << 20, Source: SourceSoft, Verdict: Undersized, Advice: &bytes},
			},
			{Service: "calc", Environment: "test", Containers: 1, CPU: CPU{Source: SourceNone, Verdict: NotReserved}, Memory: Memory{Verdict: NotReserved}},
			{Service: "web", Containers: 2, CPU: CPU{Reserved: 0.25, Verdict: Undersized, Advice: sized(0.75)}, Memory: Memory{Reserved: 1 << 30, Verdict: Oversized, Advice: &bytes}},
			{Service: "job", Containers: 0, CPU: CPU{Reserved: 4, Verdict: Oversized, Advice: sized(1)}, Memory: Memory{Verdict: InBand}},
			{Service: "new", Containers: 5, CPU: CPU{Reserved: 4, Verdict: StillLearning}, Memory: Memory{Verdict: StillLearning}},
			{Service: "fine", Containers: 5, CPU: CPU{Reserved: 4, Verdict: InBand, Advice: sized(3.9)}, Memory: Memory{Verdict: NotReserved}},
		},
		Containers: []Row{
			{Service: "calc", Environment: "prod", Container: "calc-1", ContainerID: "aa11", Containers: 1},
			{Service: "calc", Environment: "test", Container: "calc-2", ContainerID: "aa22", Containers: 1},
			{Service: "web", Container: "web-1", ContainerID: "bb", Containers: 1},
		},
	}
	if hours {
		r.Services[0].Hours = &Series{Start: r.At.Truncate(time.Hour), Used: Values{1, math.NaN(), 0.123456}}
	}
	return r
}

func ask(t *testing.T, b book, method, target string) (int, Report, string) {
	t.Helper()
	w := httptest.NewRecorder()
	(&Usage{book: b}).ServeHTTP(w, httptest.NewRequest(method, target, nil))
	var answer struct {
		Report
		Error string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%s: %v: %s", target, err, w.Body)
	}
	return w.Code, answer.Report, answer.Error
}

func TestReportIsCompleted(t *testing.T) {
	code, got, _ := ask(t, telling{report: shopReport}, "GET", "/v1/usage/report")
	if code != http.StatusOK {
		t.Fatalf("got code %d", code)
	}
	var verdicts []string
	for _, w := range got.Services {
		verdicts = append(verdicts, w.Verdict)
		if w.CPU.Reasons == nil || w.Memory.Reasons == nil {
			t.Errorf("%s: reasons are null", w.Service)
		}
	}
	if diff := cmp.Diff([]string{Undersized, NotReserved, Undersized, Oversized, StillLearning, InBand}, verdicts); diff != "" {
		t.Error(diff)
	}
	want := Sums{
		Oversized: 1, Undersized: 2, Learning: 1, Unreserved: 1, InBand: 1,
		FreeCores: 3 * 1.5, NeedCores: 2 * 0.5, FreeMemory: 2 * 768 << 20, NeedMemory: 3 * 192 << 20,
	}
	if diff := cmp.Diff(want, got.Sums); diff != "" {
		t.Error(diff)
	}
}

// An empty report has empty lists, for scripts which go over them.
func TestReportOfNothing(t *testing.T) {
	w := httptest.NewRecorder()
	u := &Usage{book: telling{report: func(bool) Report { return Report{} }}}
	u.ServeHTTP(w, httptest.NewRequest("GET", "/report", nil))
	for _, want := range []string{`"services":[]`, `"containers":[]`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("got %s, want %s in it", w.Body, want)
		}
	}
}

func TestReportOfOne(t *testing.T) {
	for _, tc := range []struct{ ref, services, containers string }{
		{"calc", "calc/prod calc/test", "calc-1 calc-2"},
		{"web", "web/", "web-1"},
		{"job", "job/", ""},
		{"calc-1", "calc/prod", "calc-1"},
		{"aa2", "calc/test", "calc-2"},
		{"bb", "web/", "web-1"},
	} {
		code, got, _ := ask(t, telling{report: shopReport}, "GET", "/v1/usage/report?ref="+tc.ref)
		var services, containers []string
		for _, w := range got.Services {
			services = append(services, w.Service+"/"+w.Environment)
		}
		for _, w := range got.Containers {
			containers = append(containers, w.Container)
		}
		if s, c := strings.Join(services, " "), strings.Join(containers, " "); code != 200 || s != tc.services || c != tc.containers {
			t.Errorf("%s: got %d, services %s, containers %s, want %s and %s", tc.ref, code, s, c, tc.services, tc.containers)
		}
		if got.Sums.Undersized != 2 {
			t.Errorf("%s: the sums are not of the host: %+v", tc.ref, got.Sums)
		}
	}
}

func TestReportRefuses(t *testing.T) {
	nan := telling{report: func(bool) Report {
		return Report{Host: HostUsage{Cores: math.NaN()}}
	}}
	for _, tc := range []struct {
		b              book
		method, target string
		code           int
		says           string
	}{
		{telling{report: shopReport}, "GET", "/v1/usage/reports", 404, "there are report, ended and explain"},
		{telling{report: shopReport}, "GET", "/v1/usage/report?ref=cal", 404, `called "cal"`},
		{telling{report: shopReport}, "GET", "/v1/usage/report?ref=", 404, `called ""`},
		{telling{report: shopReport}, "GET", "/v1/usage/report?ref=aa", 409, "give more of the ID"},
		{telling{report: shopReport}, "GET", "/v1/usage/report?hours=some", 400, "hours=some"},
		{telling{report: shopReport}, "POST", "/v1/usage/report", 405, "POST"},
		{forget{}, "GET", "/v1/usage/report", 503, "no statistics"},
		{nan, "GET", "/v1/usage/report", 500, "cannot be written"},
	} {
		code, _, said := ask(t, tc.b, tc.method, tc.target)
		if code != tc.code || !strings.Contains(said, tc.says) {
			t.Errorf("%s %s: got %d %q, want %d and %q", tc.method, tc.target, code, said, tc.code, tc.says)
		}
	}
}

func TestHoursAreSentWhenAskedFor(t *testing.T) {
	for _, hours := range []bool{false, true} {
		_, got, _ := ask(t, telling{report: shopReport}, "GET", fmt.Sprintf("/v1/usage/report?hours=%v", hours))
		if !hours {
			if got.Services[0].Hours != nil {
				t.Error("got hours, and did not ask")
			}
			continue
		}
		want := Values{1, math.NaN(), 0.1235}
		if diff := cmp.Diff(want, got.Services[0].Hours.Used, cmpopts.EquateNaNs()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestBandOf(t *testing.T) {
	b := Band{Low: -0.1, High: 0.6, HighShare: 0.5}
	for reserved, want := range map[float64]float64{0.2: 0.1, 1.2: 0.6, 4: 0.6} {
		if got := b.Of(reserved); got.High != want || got.Low != -0.1 {
			t.Errorf("%v cores: got %+v, want %v", reserved, got, want)
		}
	}
	if got := (Band{High: 0.6}).Of(0.1).High; got != 0.6 {
		t.Errorf("without a share: got %v", got)
	}
}
