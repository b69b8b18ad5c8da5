package main

import (
	"strings"
	"testing"
	"testing/fstest"
)

const sample = `# a comment
net01: One.
net02: Two.
net03 (later: no such part): Three.
`

func tree(test string) fstest.MapFS {
	return fstest.MapFS{
		"a/a_test.go":          {Data: []byte("package a\n\nfunc TestPitfall_net01_One(t *T) {}\n\n// TestPitfall_net02_Comment is no test.\n")},
		"a/testdata/x_test.go": {Data: []byte("package x\n\nfunc TestPitfall_net02_Sample(t *T) {}\n")},
		"b/b_test.go":          {Data: []byte("package b\n\n" + test)},
	}
}

func TestRun(t *testing.T) {
	for name, tt := range map[string]struct {
		test  string
		ok    bool
		lines []string
	}{
		"all covered": {
			"func TestPitfall_net02_Two(t *T) {}\n", true,
			[]string{"net01  covered  One.", "a.TestPitfall_net01_One", "net02  covered", "b.TestPitfall_net02_Two", "net03  later", "2 covered, 1 later, 0 missing"},
		},
		"one missing":     {"", false, []string{"net02  MISSING  Two.", "1 covered, 1 later, 1 missing"}},
		"a method":        {"func (x) TestPitfall_net02_Two(t *T) {}\n", false, []string{"net02  MISSING"}},
		"one not in list": {"func TestPitfall_net02_Two(t *T) {}\nfunc TestPitfall_net99_X(t *T) {}\n", false, []string{"net99  UNKNOWN"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			ok, err := run(&out, sample, tree(tt.test))
			if err != nil || ok != tt.ok {
				t.Errorf("got %v, %v; want %v", ok, err, tt.ok)
			}
			for _, want := range tt.lines {
				if !strings.Contains(out.String(), want) {
					t.Errorf("no %q in:\n%s", want, out.String())
				}
			}
		})
	}
}

func TestParse_Errors(t *testing.T) {
	for _, list := range []string{"net1: Too short.\n", "net01 One.\n", "net01: One.\nnet01: Again.\n", "net01 (later): Three.\n"} {
		if got, err := parse(list); err == nil {
			t.Errorf("parse(%q): got %v, want an error", list, got)
		}
	}
}

func TestList(t *testing.T) {
	all, err := parse(list)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 26 {
		t.Errorf("got %d pitfalls, want 26 at least", len(all))
	}
}
