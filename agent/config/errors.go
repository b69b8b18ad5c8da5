package config

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error is one thing that is wrong with the configuration.
type Error struct {
	File   string // the name of the File; "" if a default is wrong
	Line   int    // from 1; 0 if there is none (an Override, a default)
	Column int    // in characters, from 1; 0 if there is none
	Path   string // of the key, such as "dns.listen"; "" for a whole file
	Msg    string // what is wrong
	Hint   string // what would be right; may be empty
	Err    error  // what UnmarshalText or Validate returned; may be nil

	at mark
}

// Error returns the error in one line: "file:line:column: key: what: hint".
func (e *Error) Error() string {
	s := e.place() + e.what()
	if e.Hint != "" {
		s += ": " + e.Hint
	}
	return s
}

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

func (e *Error) place() string {
	switch {
	case e.File == "":
		return "defaults: "
	case e.Line == 0:
		return printable(e.File) + ": "
	default:
		return fmt.Sprintf("%s:%d:%d: ", printable(e.File), e.Line, e.Column)
	}
}

func (e *Error) what() string {
	if e.Path == "" {
		return printable(e.Msg)
	}
	return printable(e.Path + ": " + e.Msg)
}

// Errors is everything that is wrong with the configuration, by file, line and
// column.
type Errors struct {
	List []*Error // not empty
}

// Error returns all errors, one in a line.
func (e *Errors) Error() string {
	var lines []string
	for _, err := range e.List {
		lines = append(lines, err.Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns all errors.
func (e *Errors) Unwrap() []error {
	errs := make([]error, len(e.List))
	for i, err := range e.List {
		errs[i] = err
	}
	return errs
}

// The escape sequences of Format (ECMA-48 SGR).
const (
	bold  = "\x1b[1m"
	red   = "\x1b[1;31m"
	green = "\x1b[32m"
	faint = "\x1b[2m"
	reset = "\x1b[0m"
)

// Format writes all errors for people: each with an excerpt of its file and
// what would be right, and a count at the end. Colour is for terminals.
func (e *Errors) Format(w io.Writer, color bool) error {
	b := bufio.NewWriter(w)
	paint := func(code, text string) string {
		if color && text != "" {
			return code + text + reset
		}
		return text
	}
	var files []string
	for _, err := range e.List {
		fmt.Fprintf(b, "%s%s\n", paint(bold, err.place()), paint(red, err.what()))
		for _, l := range err.excerpt() {
			code := faint
			if l.caret {
				code = red
			}
			fmt.Fprintf(b, "%s%s\n", paint(faint, l.gutter), paint(code, l.text))
		}
		if err.Hint != "" {
			fmt.Fprintf(b, "  = %s\n", paint(green, printable(err.Hint)))
		}
		b.WriteByte('\n')
		if err.File != "" && !slices.Contains(files, err.File) {
			files = append(files, err.File)
		}
	}
	count := "1 error"
	if n := len(e.List); n > 1 {
		count = fmt.Sprintf("%d errors", n)
	}
	switch {
	case len(files) == 1:
		count += " in " + files[0]
	case len(files) > 1:
		count += fmt.Sprintf(" in %d files", len(files))
	}
	fmt.Fprintln(b, printable(count))
	return b.Flush()
}

// excerptLine is one line of an excerpt, with what stands in front of it.
type excerptLine struct {
	gutter, text string
	caret        bool
}

// maxWidth is how much of a line an excerpt shows, in characters.
const maxWidth = 100

// excerpt returns the lines around the error, with a line of carets below its
// own.
func (e *Error) excerpt() []excerptLine {
	s := e.at.src
	if s == nil || e.Line == 0 {
		return nil
	}
	from, to := max(e.Line-1, 1), min(e.Line+1, len(s.shown))
	if to == len(s.shown) && to > e.Line && s.shown[to-1] == "" {
		to-- // what follows the last newline is no line
	}
	digits := len(fmt.Sprint(to))
	skip := max(0, e.Column-maxWidth*3/4)
	var out []excerptLine
	for n := from; n <= to; n++ {
		line := []rune(s.shown[n-1])
		cut := ""
		line = line[min(skip, len(line)):]
		if len(line) > maxWidth {
			line, cut = line[:maxWidth], "…"
		}
		text := strings.TrimRight(printable(string(line))+cut, " ")
		out = append(out, excerptLine{gutter: strings.TrimRight(fmt.Sprintf("  %*d | ", digits, n), " "), text: text})
		if text != "" {
			out[len(out)-1].gutter += " "
		}
		if n == e.Line {
			out = append(out, excerptLine{
				gutter: fmt.Sprintf("  %*s | ", digits, ""),
				text:   caret(s.shown[n-1], skip, e.Column, e.at.width),
				caret:  true,
			})
		}
	}
	return out
}

// caret returns the line that points at a column of another one. It repeats
// that one's tabs, so that both are as wide.
func caret(line string, skip, col, width int) string {
	var b strings.Builder
	for i, r := range []rune(before(line, col)) {
		switch {
		case i < skip:
		case r == '\t':
			b.WriteByte('\t')
		default:
			b.WriteByte(' ')
		}
	}
	rest := utf8.RuneCountInString(strings.TrimRight(after(line, col), " "))
	b.WriteString(strings.Repeat("^", max(1, min(width, rest, maxWidth/4))))
	return b.String()
}

// printable replaces what could move a terminal's cursor.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}
