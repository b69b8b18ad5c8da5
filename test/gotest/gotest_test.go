package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const events = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"fine\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.5}
{"Action":"output","Package":"p","Test":"TestB/sub","Output":"wrong\n"}
{"Action":"fail","Package":"p","Test":"TestB/sub","Elapsed":9}
{"Action":"fail","Package":"p","Test":"TestB","Elapsed":2.25}
{"Action":"output","Package":"p","Output":"FAIL\n"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.01s\n"}
{"Action":"fail","Package":"p","Elapsed":0.01}
not JSON
{"ImportPath":"r","Action":"build-output","Output":"r.go:1: broken\n"}
{"Action":"output","Package":"q","Output":"PASS\n"}
{"Action":"output","Package":"q","Output":"ok  \tq\t0.02s\n"}
{"Action":"pass","Package":"q","Elapsed":0.02}
{"Action":"output","Package":"q","Test":"TestC","Output":"not here\n"}
{"Action":"skip","Package":"q","Test":"TestC"}
{"Action":"output","Package":"s","Output":"?   \ts\t[no test files]\n"}
{"Action":"skip","Package":"s"}
`

func TestShow(t *testing.T) {
	for _, tt := range []struct {
		verbose bool
		want    string
	}{
		{false, "wrong\nFAIL\nFAIL\tp\t0.01s\nnot JSON\nr.go:1: broken\nok  \tq\t0.02s\nnot here\n"},
		{true, "fine\nwrong\nFAIL\nFAIL\tp\t0.01s\nnot JSON\nr.go:1: broken\nPASS\nok  \tq\t0.02s\nnot here\n?   \ts\t[no test files]\n"},
	} {
		var out strings.Builder
		if err := show(&out, strings.NewReader(events), tt.verbose); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != tt.want {
			t.Errorf("verbose %v: got %q, want %q", tt.verbose, got, tt.want)
		}
	}
}

func TestListSlowest(t *testing.T) {
	file := filepath.Join(t.TempDir(), "events")
	if err := os.WriteFile(file, []byte(events), 0o644); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]string{
		1: "    2.25s  TestB  p\n",
		9: "    2.25s  TestB  p\n    0.50s  TestA  p\n",
	} {
		var out strings.Builder
		if err := listSlowest(&out, []string{file}, n); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("the %d slowest: got %q, want %q", n, out.String(), want)
		}
	}
}
