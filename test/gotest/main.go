// Command gotest runs go test and prints what it would have printed, keeping
// the events of all tests in a file; and lists the slowest tests of such files.
//
//	gotest -json FILE -- ARG…         go test ARG…, with the events in FILE
//	gotest -slowest N FILE…           the N slowest tests
//
// Its exit status is that of go test. Without -v among the arguments it prints
// the output of tests that have failed or were skipped, and the closing line of
// each package.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// event is a line of go test -json: see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output, in place of Package
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

func main() {
	file := flag.String("json", "", "file to keep the events in")
	slowest := flag.Int("slowest", 0, "list so many tests, the slowest of the files that are named")
	flag.Parse()
	var err error
	if *slowest > 0 {
		err = listSlowest(os.Stdout, flag.Args(), *slowest)
	} else {
		err = run(*file, flag.Args())
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		os.Exit(max(exit.ExitCode(), 1))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
}

func run(file string, args []string) error {
	if file == "" {
		return errors.New("usage: gotest -json FILE -- ARG… | gotest -slowest N FILE…")
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	keep, err := os.Create(file)
	if err != nil {
		return err
	}
	defer keep.Close()
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	verbose := slices.Contains(args, "-v")
	if err := show(os.Stdout, io.TeeReader(out, keep), verbose); err != nil {
		return errors.Join(err, cmd.Wait())
	}
	if err := cmd.Wait(); err != nil {
		return err
	}
	return keep.Close()
}

// show prints the events of r as go test does: everything when verbose, else
// what has failed or was skipped, and each package's last line.
func show(w io.Writer, r io.Reader, verbose bool) error {
	held := map[[2]string][]string{} // output by package and test, until its end
	return each(r, func(e event) {
		key := [2]string{e.Package, e.Test}
		switch {
		case e.Action == "build-output", e.Action == "raw", e.Action == "output" && verbose:
			fmt.Fprint(w, e.Output)
		case e.Action == "output":
			held[key] = append(held[key], e.Output)
		// A test that was skipped proves nothing, and says why.
		case e.Action == "fail", e.Action == "skip" && e.Test != "":
			fmt.Fprint(w, strings.Join(held[key], ""))
			delete(held, key)
		case e.Action == "pass" && e.Test == "":
			fmt.Fprint(w, lastLine(held[key]))
			delete(held, key)
		case e.Action == "pass", e.Action == "skip":
			delete(held, key)
		}
	})
}

// lastLine returns the line that says how a package did.
func lastLine(output []string) string {
	for _, line := range slices.Backward(output) {
		if strings.HasPrefix(line, "ok ") {
			return line
		}
	}
	return ""
}

// each calls f with every event of r. A line that is none becomes one of
// action "raw": the go command writes a few such.
func each(r io.Reader, f func(event)) error {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			var e event
			if json.Unmarshal([]byte(line), &e) != nil {
				e = event{Action: "raw", Output: line}
			}
			f(e)
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
	}
}

// listSlowest prints the n tests of the files that took longest; subtests count
// with their test.
func listSlowest(w io.Writer, files []string, n int) error {
	var tests []event
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = each(f, func(e event) {
			if e.Test != "" && !strings.Contains(e.Test, "/") && (e.Action == "pass" || e.Action == "fail") {
				tests = append(tests, e)
			}
		})
		f.Close()
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	slices.SortStableFunc(tests, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	for _, e := range tests[:min(n, len(tests))] {
		fmt.Fprintf(w, "%8.2fs  %s  %s\n", e.Elapsed, e.Test, strings.TrimPrefix(e.Package, "github.com/berthd/berth/"))
	}
	return nil
}
