package main

import "testing"

func TestParseFigures(t *testing.T) {
	got, err := parseFigures("# HELP a b\na 1.5\nb{x=\"1 {\"} 2\nb{x=\"2\"} 3e0\n\n")
	if err != nil || len(got) != 2 || got["a"] != 1.5 || got["b"] != 5 {
		t.Errorf("got %v, %v, want a 1.5 and b 5", got, err)
	}
	if got, err := parseFigures("a\n"); err == nil {
		t.Errorf("got %v, want an error", got)
	}
}
