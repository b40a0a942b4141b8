package yamlpos

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sort"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"uenv-ci.dev/internal/fault"
)

// Limits of what Parse accepts. Real files are a few kilobytes.
const (
	MaxBytes  = 10 << 20 // size of a file
	maxValues = 200_000  // values of a document, those behind aliases counted each time
	maxDepth  = 200      // nesting
	// maxSearch is the size up to which the line of a syntax error is searched for.
	maxSearch = 256 << 10
)

// Parse reads one document; an empty one is a null scalar. The error is a
// fault.Problems naming file. Where only single values are wrong (duplicate keys,
// unknown tags, impossible dates), the node is returned beside the error, so that
// the rest can be checked too.
func Parse(file string, data []byte) (*Node, error) {
	node, problems := Read(file, data)
	return node, problems.Err()
}

// Read is Parse that returns warnings too: duplicate keys by which nothing is lost.
func Read(file string, data []byte) (*Node, fault.Problems) {
	if p, bad := checkText(data); bad {
		p.File = file
		return nil, fault.Problems{p}
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	doc, msg := decode(bytes.NewReader(data))
	if msg != "" {
		p := syntaxProblem(data, msg)
		p.File = file
		return nil, fault.Problems{p}
	}
	if len(doc) == 0 {
		return &Node{File: file, Line: 1, Column: 1}, nil
	}
	b := &builder{file: file, done: map[*yaml.Node]built{}, active: map[*yaml.Node]bool{}}
	if len(doc) > 1 {
		b.problem(doc[1], "a second document begins here; only one is allowed", "")
	}
	node := b.build(doc[0], 1).node
	if b.fatal {
		node = nil
	}
	return node, b.problems
}

// decode returns the root of each document, at most two, or what the parser says
// is wrong, without its guess at the line. The parser is somebody else's: should it panic, that is a message too.
func decode(r io.Reader) (roots []*yaml.Node, msg string) {
	defer func() {
		if r := recover(); r != nil {
			roots, msg = nil, fmt.Sprintf("cannot be parsed: %v", r)
		}
	}()
	dec := yaml.NewDecoder(r)
	for range 2 {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, linePrefix.ReplaceAllString(err.Error(), "")
		}
		if len(doc.Content) == 1 {
			roots = append(roots, doc.Content[0])
		}
	}
	return roots, ""
}

var linePrefix = regexp.MustCompile(`^(?:yaml: )?(?:line \d+: )?`)

// checkText finds what no YAML text may contain: other encodings than UTF-8,
// control characters, more bytes or values than the limits.
func checkText(data []byte) (fault.Problem, bool) {
	if len(data) > MaxBytes {
		return fault.Problem{Message: fmt.Sprintf("is larger than %d MiB", MaxBytes>>20)}, true
	}
	if bytes.HasPrefix(data, []byte{0xff, 0xfe}) || bytes.HasPrefix(data, []byte{0xfe, 0xff}) {
		return fault.Problem{Message: "is UTF-16 text", Hint: "save it as UTF-8"}, true
	}
	line, column, values := 1, 1, 0
	for i := 0; i < len(data); {
		c, size := rune(data[i]), 1
		if c >= utf8.RuneSelf {
			c, size = utf8.DecodeRune(data[i:])
		}
		if c == utf8.RuneError && size == 1 {
			return fault.Problem{Line: line, Column: column, Message: fmt.Sprintf("byte 0x%02x is not UTF-8", data[i]), Hint: "save the file as UTF-8"}, true
		}
		if !printable(c) {
			return fault.Problem{Line: line, Column: column, Message: fmt.Sprintf("control character U+%04X", c)}, true
		}
		i += size
		column++
		switch c {
		case '\n':
			line, column = line+1, 1
			values++
		case '\r':
			if i == len(data) || data[i] != '\n' {
				line, column = line+1, 1
			}
		case ',', '[', '{':
			values++
		case ' ':
			if i > 1 && strings.IndexByte("-?:", data[i-2]) >= 0 {
				values++
			}
		}
	}
	if values > maxValues {
		return fault.Problem{Message: fmt.Sprintf("has more than %d lines and values", maxValues)}, true
	}
	return fault.Problem{}, false
}

// printable reports whether YAML 1.1 allows the character.
func printable(c rune) bool {
	return c == '\t' || c == '\n' || c == '\r' || c >= 0x20 && c <= 0x7e || c == 0x85 ||
		c >= 0xa0 && c <= 0xd7ff || c >= 0xe000 && c <= 0xfffd || c >= 0x10000
}

// syntaxProblem finds the line of a syntax error. The parser names that of the
// enclosing construct, if any. So the last line it had asked for is taken, going
// back as long as the text without it is wrong in the same way.
func syntaxProblem(data []byte, msg string) fault.Problem {
	feed := &lineReader{data: data}
	decode(feed)
	line := feed.lines
	if len(data) <= maxSearch {
		line = firstWrong(data, msg, line)
	}
	text := data[min(lineStart(data, line), len(data)):]
	if i := bytes.IndexAny(text, "\r\n"); i >= 0 {
		text = text[:i]
	}
	column, hint := advice(string(text), msg)
	return fault.Problem{Line: line, Column: column, Message: clip("not valid YAML: " + msg), Hint: hint}
}

// firstWrong returns the first line with which the text is wrong in the same way
// as with all lines to last: near last, or else by halving what is left.
func firstWrong(data []byte, msg string, last int) int {
	wrong := func(lines int) bool {
		_, m := decode(bytes.NewReader(data[:lineStart(data, lines+1)]))
		return m == msg
	}
	for steps := 0; steps < 8; steps++ {
		if last <= 1 || !wrong(last-1) {
			return last
		}
		last--
	}
	return 1 + sort.Search(last-1, func(i int) bool { return wrong(i + 1) })
}

var badStart = regexp.MustCompile("^(?:\\s*(?:[-?:]\\s+)*|.*?(?::\\s+|[\\[{,]\\s*))([%@`])")

// advice guesses from the text of a line what its author should change, and where.
func advice(line, msg string) (column int, hint string) {
	indent := line[:len(line)-len(strings.TrimLeft(line, " \t"))]
	if i := strings.IndexByte(indent, '\t'); i >= 0 {
		return i + 1, "tabs cannot indent YAML: use blanks"
	}
	if m := badStart.FindStringSubmatchIndex(line); m != nil {
		return utf8.RuneCountInString(line[:m[2]]) + 1, fmt.Sprintf("a value that starts with '%s' needs quotes", line[m[2]:m[3]])
	}
	switch {
	case strings.Contains(msg, "mapping values are not allowed"):
		hint = "a value with ': ' in it needs quotes; otherwise check the indentation"
	case strings.Contains(msg, "did not find expected"), strings.Contains(msg, "could not find expected ':'"):
		hint = "check the indentation, brackets and quotes around this line"
	case strings.Contains(msg, "unexpected end of stream"), strings.Contains(msg, "unexpected document indicator"):
		hint = "a quote that opens here is not closed"
	}
	return utf8.RuneCountInString(indent) + 1, hint
}

// lineStart returns the offset at which a line (from 1) begins.
func lineStart(data []byte, line int) int {
	at := 0
	for ; line > 1 && at < len(data); line-- {
		at += lineLength(data[at:])
	}
	return at
}

// lineLength returns the length of the first line with its line break.
func lineLength(data []byte) int {
	i := bytes.IndexAny(data, "\r\n")
	switch {
	case i < 0:
		return len(data)
	case data[i] == '\r' && i+1 < len(data) && data[i+1] == '\n':
		return i + 2
	default:
		return i + 1
	}
}

// lineReader hands out one line at each Read and counts them.
type lineReader struct {
	data  []byte
	lines int
	rest  []byte // of the present line
}

func (r *lineReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if len(r.data) == 0 {
			return 0, io.EOF
		}
		n := lineLength(r.data)
		r.rest, r.data = r.data[:n], r.data[n:]
		r.lines++
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
