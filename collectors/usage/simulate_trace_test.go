package usage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReadTraces(t *testing.T) {
	got, err := ReadTraces(strings.NewReader(`t,container,cores
120,web,0.5
# a remark
1970-01-01T00:05:10Z,web,1
300.5, "web" ,2

60,job,4
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Trace{
		{Name: "job", Start: time.Unix(60, 0).UTC(), Cores: []float32{4}},
		{Name: "web", Start: time.Unix(120, 0).UTC(), Cores: []float32{0.5, 1.5, 1.5, 1.5}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestReadTracesGaps: values of every five minutes are no gaps; a day without any
// is a day in which the container did not run.
func TestReadTracesGaps(t *testing.T) {
	var b bytes.Buffer
	for i := range 12 {
		fmt.Fprintf(&b, "%d,web,1\n", 3600+300*i)
	}
	fmt.Fprintf(&b, "%d,web,2\n", 3600+86400)
	got, err := ReadTraces(&b)
	if err != nil {
		t.Fatal(err)
	}
	var ones, twos, none int
	for _, c := range got[0].Cores {
		switch c {
		case 1:
			ones++
		case 2:
			twos++
		case 0:
			none++
		}
	}
	if ones != 56 || twos != 60 || none != len(got[0].Cores)-116 {
		t.Errorf("minutes at 1: %d, at 2: %d, at 0: %d", ones, twos, none)
	}
}

func TestReadTracesErrors(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "there is no line"},
		{"t,container,cores\n", "there is no line"},
		{"1,web\n", "line 1: it has 2 fields"},
		{"1,web,1\n2,web,1,1\n", "line 2: it has 4 fields"},
		{"1,web,1\n\nyesterday,web,1\n", `line 3: "yesterday" is no time`},
		{"-1,web,1\n", "is no time"},
		{"1e300,web,1\n", "is no time"},
		{"NaN,web,1\n", "is no time"},
		{"1,web,lots\n", `"lots" is no number of cores`},
		{"1,web,-1\n", "is no number"},
		{"1,web,NaN\n", "is no number"},
		{"1,web,Inf\n", "is no number"},
		{"1,,1\n", "no name"},
		{"1,web,1\n99999999999,web,1\n", "at most 400 can be replayed"},
		{"1," + strings.Repeat("x", 5000) + ",1\n", "line 1: it is longer"},
	} {
		if _, err := ReadTraces(strings.NewReader(c.in)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.30q: got %v, want %q", c.in, err, c.want)
		}
	}
	if _, err := ReadTraces(failing{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a file that cannot be read: %v", err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, os.ErrClosed }

func FuzzReadTraces(f *testing.F) {
	f.Add([]byte("t,container,cores\n120,web,0.5\n1970-01-01T00:05:10Z,web,1\n"))
	f.Add([]byte("\ufeff1,a,1\n1,b,1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		traces, err := ReadTraces(bytes.NewReader(data))
		if (err == nil) != (len(traces) > 0) {
			t.Fatalf("%d traces, and %v", len(traces), err)
		}
		for _, tr := range traces {
			if tr.Name == "" || len(tr.Cores) == 0 || tr.Cores[0] < 0 {
				t.Fatalf("%+v", tr)
			}
			if len(tr.Cores) < 5000 {
				for _, m := range Methods() {
					s := Replay(tr, m, true)
					for _, v := range []float64{s.Slack, s.Time, s.Volume, s.Changes, s.Longest} {
						if math.IsNaN(v) || v < -1e-9 {
							t.Fatalf("%s: %+v", m.Name, s)
						}
					}
				}
			}
		}
	})
}

// TestSimulate: a load that is written down and read again scores as it did, and
// the result does not depend on how the work is shared out.
func TestSimulate(t *testing.T) {
	o := SimulateOptions{Seed: 5, Seeds: 2, Days: 10, Rough: 1}
	one, err := Simulate(t.Context(), o, Methods())
	if err != nil {
		t.Fatal(err)
	}
	two, err := Simulate(t.Context(), o, Methods())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(one, two); diff != "" || one.Loads != 2*len(Kinds) || len(one.Methods[0].Kinds) != len(Kinds) {
		t.Errorf("%+v\n%s", one, diff)
	}

	load := Generate(KindDaily, 5, 10, 1)
	var csv bytes.Buffer
	fmt.Fprintln(&csv, "t,container,cores")
	for i, c := range load.Cores {
		fmt.Fprintf(&csv, "%d,%s,%g\n", load.Start.Add(time.Duration(i)*time.Minute).Unix(), load.Name, c)
	}
	traces, err := ReadTraces(&csv)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Simulate(t.Context(), SimulateOptions{Traces: traces}, Methods())
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range Methods() {
		if want := Replay(load, m, false); got.Methods[i].Loads[0].Score != want {
			t.Errorf("%s: read back: %+v, want %+v", m.Name, got.Methods[i].Loads[0].Score, want)
		}
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Simulate(ended, o, Methods()); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %v", err)
	}
	for _, bad := range []SimulateOptions{{Seeds: 0, Days: 28, Rough: 1}, {Seeds: 1, Days: 1, Rough: 1}, {Seeds: 1, Days: 28, Rough: -1}} {
		if _, err := Simulate(t.Context(), bad, nil); err == nil {
			t.Errorf("%+v is no error", bad)
		}
	}
}
