package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// story prints what happens.
type story struct {
	out      *os.File
	terminal bool
}

func newStory(out *os.File) story {
	_, err := unix.IoctlGetTermios(int(out.Fd()), unix.TCGETS)
	return story{out, err == nil && os.Getenv("NO_COLOR") == ""}
}

func (s story) colour() string {
	if s.terminal {
		return "always"
	}
	return "never"
}

func (s story) title(text string) {
	if s.terminal {
		text = "\x1b[1m" + text + "\x1b[0m"
	}
	fmt.Fprintf(s.out, "\n%s\n", text)
}

func (s story) say(format string, args ...any) { fmt.Fprintf(s.out, "  "+format+"\n", args...) }

func (s story) show(format string, args ...any) { fmt.Fprintf(s.out, "    "+format+"\n", args...) }

func (s story) quote(text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		fmt.Fprintln(s.out, strings.TrimRight("    "+line, " "))
	}
}

// latencies are measured times, which print as their median and maximum.
type latencies []time.Duration

func (l *latencies) add(d time.Duration) { *l = append(*l, d) }

func (l latencies) String() string {
	if len(l) == 0 {
		return "no time"
	}
	sorted := slices.Sorted(slices.Values(l))
	if len(sorted) == 1 {
		return ms(sorted[0])
	}
	return fmt.Sprintf("%s (median of %d, at most %s)", ms(sorted[len(sorted)/2]), len(sorted), ms(sorted[len(sorted)-1]))
}

// ms prints milliseconds. Below a tenth of one, our own subscriber was no
// faster than berth, and there is nothing to tell.
func ms(d time.Duration) string {
	if d < 100*time.Microsecond {
		return "less than 0.1 ms"
	}
	return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
}
