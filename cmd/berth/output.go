package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// terminal reports whether w is one.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// colourful reports whether w is a terminal on which colours are welcome
// (https://no-color.org).
func colourful(w io.Writer) bool { return terminal(w) && os.Getenv("NO_COLOR") == "" }

// wantsColour reports whether to write colours to w, given the flag --color.
func wantsColour(flag string, w io.Writer) bool {
	return flag == "always" || flag != "never" && colourful(w)
}

// paint is how a text looks on a terminal.
type paint string

const (
	plain  paint = ""
	bold   paint = "1"
	dim    paint = "2"
	red    paint = "31"
	green  paint = "32"
	yellow paint = "33"
)

// painter paints texts, or leaves them as they are.
type painter bool

func (c *cli) painter() painter {
	return painter(wantsColour(c.colour, c.out))
}

func (on painter) paint(p paint, s string) string {
	if !on || p == plain || s == "" {
		return s
	}
	return "\x1b[" + string(p) + "m" + s + "\x1b[0m"
}

// cell is one field of a table.
type cell struct {
	text  string
	paint paint
}

// table prints columns that are as wide as their widest cell.
type table struct {
	head []string
	rows [][]cell
}

func (t *table) add(cells ...any) {
	row := make([]cell, 0, len(cells))
	for _, c := range cells {
		if painted, ok := c.(cell); ok {
			row = append(row, painted)
		} else {
			row = append(row, cell{text: fmt.Sprint(c)})
		}
	}
	t.rows = append(t.rows, row)
}

func (t *table) write(w io.Writer, on painter) {
	widths := make([]int, len(t.head))
	for i, h := range t.head {
		widths[i] = utf8.RuneCountInString(h)
	}
	for _, row := range t.rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	line := func(cells []cell) {
		var b strings.Builder
		for i, c := range cells {
			b.WriteString(on.paint(c.paint, c.text))
			if i < len(cells)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	head := make([]cell, len(t.head))
	for i, h := range t.head {
		head[i] = cell{h, bold}
	}
	line(head)
	for _, row := range t.rows {
		line(row)
	}
}

// printJSON prints an answer as it came, indented.
func (c *cli) printJSON(raw []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(raw), "", "  "); err != nil {
		return fmt.Errorf("read berth's answer: %w", err)
	}
	b.WriteByte('\n')
	_, err := c.out.Write(b.Bytes())
	return err
}

// ago says how long ago t was, in two units at most.
func ago(t, now time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return span(now.Sub(t))
}

func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return "0s"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
