package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of one file. The parser's time grows with the square of both (1.5 s
// at the first one, for 12,000 keys), and no config that a person wrote comes
// near them.
const (
	maxBytes = 128 << 10
	maxDepth = 64
)

// parse returns the one document of a source, or nil when it says nothing.
func parse(s *source) (_ ast.Node, err *Error) {
	defer func() {
		// A daemon must not die of a file that its parser trips over.
		if r := recover(); r != nil {
			err = bad(s.mark(1, 1, 1), "cannot be read as YAML", "the parser gave up: look for unusual syntax")
		}
	}()
	if err := checkText(s); err != nil {
		return nil, err
	}
	tokens := lexer.Tokenize(s.text)
	if err := checkDepth(s, tokens); err != nil {
		return nil, err
	}
	f, perr := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if perr != nil {
		return nil, syntaxError(s, perr)
	}
	body, err := onlyDocument(s, f)
	if err != nil || body == nil {
		return nil, err
	}
	return body, checkComplete(s, tokens, body)
}

// bad returns an error of a whole file.
func bad(at mark, msg, hint string) *Error { return &Error{at: at, Msg: msg, Hint: hint} }

// checkText refuses what YAML calls non-printable (YAML 1.2 §5.1), which would
// otherwise end up in values unseen.
func checkText(s *source) *Error {
	if len(s.text) > maxBytes {
		return bad(s.mark(1, 1, 1), fmt.Sprintf("the file is larger than %d bytes", maxBytes), "split it into files in conf.d")
	}
	line, col := 1, 1
	for i, c := range s.text {
		switch {
		case c == utf8.RuneError && !strings.HasPrefix(s.text[i:], "\uFFFD"):
			return bad(s.mark(line, col, 1), "this is not UTF-8 text", "save the file as UTF-8")
		case c == '\n':
			line, col = line+1, 0
		case c == '\t', c == '\r' && strings.HasPrefix(s.text[i:], "\r\n"):
		case unicode.IsControl(c), c == '\uFEFF':
			return bad(s.mark(line, col, 1), fmt.Sprintf("the character %U is not allowed", c),
				`remove it, or write it with an escape in "double quotes"`)
		}
		col++
	}
	return nil
}

// checkDepth bounds the recursion of the parser: brackets within brackets, and
// "- - -" or "? ? ?" on one line. (Depth by indentation is bounded by the size
// of the file.)
func checkDepth(s *source, tokens token.Tokens) *Error {
	brackets, nested, line := 0, 0, 0
	for _, t := range tokens {
		if t.Position.Line != line {
			line, nested = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			brackets++
		case token.SequenceEndType, token.MappingEndType:
			brackets--
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			nested++
		}
		if max(brackets, nested) > maxDepth {
			return bad(s.mark(line, t.Position.Column, 1), fmt.Sprintf("nested more than %d levels deep", maxDepth), "")
		}
	}
	return nil
}

// syntaxError puts the parser's error into our form. Its own text is left out:
// it quotes the file, secrets and all.
func syntaxError(s *source, err error) *Error {
	syntax, ok := errors.AsType[yaml.Error](err)
	if !ok || syntax.GetToken() == nil {
		return bad(s.mark(1, 1, 1), "cannot be read as YAML", "")
	}
	e := bad(s.place(syntax.GetToken()), "syntax error: "+syntax.GetMessage(), "")
	line := s.line(e.at.line)
	switch {
	case strings.HasPrefix(strings.TrimLeft(line, " "), "\t"):
		e.Hint = "indent with spaces, not with tabs"
	case strings.Contains(e.Msg, "mapping value is not allowed"):
		e.Hint = `put a value that contains ": " into "double quotes", and check the indentation`
	case strings.Contains(e.Msg, "unexpected key name"):
		e.Hint = `write "key: value", with a colon and a space`
	case strings.Contains(e.Msg, "reserved character"):
		e.Hint = `put the value into "double quotes"`
	case strings.Contains(e.Msg, "value is not allowed"):
		e.Hint = "check the indentation: keys of one section start in the same column"
	case strings.Contains(e.Msg, "must be specified"):
		e.Hint = "close the bracket or brace, and put commas between items"
	case strings.Contains(e.Msg, "could not find end character"):
		e.Hint = "close the quote"
	}
	return e
}

// onlyDocument refuses directives and all documents but one.
func onlyDocument(s *source, f *ast.File) (ast.Node, *Error) {
	var body ast.Node
	for _, doc := range f.Docs {
		if doc.Body == nil {
			continue
		}
		if d, ok := doc.Body.(*ast.DirectiveNode); ok {
			return nil, bad(s.place(d.Start), "YAML directives are not supported", "remove the line")
		}
		if body != nil {
			return nil, bad(s.place(first(doc.Body)), "a second document starts here",
				`remove the line "---" or "..." above, or move what follows to a file in conf.d`)
		}
		body = doc.Body
	}
	return body, nil
}

// checkComplete refuses a file of which some scalar does not appear in the
// tree: what the parser dropped, nobody would miss.
func checkComplete(s *source, tokens token.Tokens, body ast.Node) *Error {
	seen := make(map[*token.Token]bool)
	if !collect(body, seen) {
		return nil
	}
	for _, t := range tokens {
		switch t.Type {
		case token.StringType, token.SingleQuoteType, token.DoubleQuoteType,
			token.IntegerType, token.FloatType, token.BoolType, token.NullType:
			if !seen[t] {
				return bad(s.place(t), "this cannot be understood where it stands", "check the syntax around it")
			}
		}
	}
	return nil
}

// collect adds the tokens of all scalars under n to seen. It returns false if
// there is any node of a kind that the decoder refuses.
func collect(n ast.Node, seen map[*token.Token]bool) bool {
	switch n := n.(type) {
	case *ast.MappingNode:
		for _, v := range n.Values {
			if !collect(v, seen) {
				return false
			}
		}
		return true
	case *ast.MappingValueNode:
		return collect(n.Key, seen) && collect(n.Value, seen)
	case *ast.SequenceNode:
		for _, v := range n.Values {
			if !collect(v, seen) {
				return false
			}
		}
		return true
	case *ast.LiteralNode:
		seen[n.Value.GetToken()] = true
		return true
	}
	_, ok := scalarOf(n)
	if ok {
		seen[n.GetToken()] = true
	}
	return ok
}

// first returns the token that a node starts with, where a person would point
// at it: a block mapping's own token is its first colon.
func first(n ast.Node) *token.Token {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return first(n.Values[0])
		}
	case *ast.MappingValueNode:
		return first(n.Key)
	}
	return n.GetToken()
}

// place returns where a token stands. The lexer is some columns off after
// trailing blanks; the text of the line decides.
func (s *source) place(t *token.Token) mark {
	line, col := t.Position.Line, t.Position.Column
	shown := written(t)
	if text := s.line(line); shown != "" && !strings.HasPrefix(after(text, col), shown) {
		if i := strings.LastIndex(before(text, col), shown); i >= 0 {
			col = utf8.RuneCountInString(text[:i]) + 1
		} else if i := strings.Index(text, shown); i >= 0 {
			col = utf8.RuneCountInString(text[:i]) + 1
		}
	}
	width := utf8.RuneCountInString(shown)
	if m := quoted.FindString(after(s.line(line), col)); m != "" {
		width = utf8.RuneCountInString(m)
	}
	if rest := utf8.RuneCountInString(after(s.line(line), col)); width > rest {
		width = rest
	}
	return s.mark(line, col, max(width, 1))
}

var quoted = regexp.MustCompile(`^"(\\.|[^"\\])*"`)

// written returns how the first line of a token looks in the file.
func written(t *token.Token) string {
	text, _, _ := strings.Cut(strings.TrimSpace(t.Origin), "\n")
	if t.Type == token.DoubleQuoteType {
		return `"` // the lexer loses the escapes in Origin
	}
	return strings.TrimRight(text, " \r")
}

func (s *source) line(n int) string {
	if n < 1 || n > len(s.lines) {
		return ""
	}
	return s.lines[n-1]
}

// before and after cut a line in front of a column, counted in characters from 1.
func before(line string, col int) string { return line[:len(line)-len(after(line, col))] }

func after(line string, col int) string {
	for ; col > 1 && line != ""; col-- {
		_, n := utf8.DecodeRuneInString(line)
		line = line[n:]
	}
	return line
}
