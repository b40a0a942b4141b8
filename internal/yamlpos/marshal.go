package yamlpos

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// MarshalOptions say how Marshal writes.
type MarshalOptions struct {
	SortKeys bool // sort string keys at every level, as PyYAML does by default
}

// Quoted is a string that is always written in quotes. What is plain text to PyYAML
// may be another type to other readers: 1,000 and 1e3 are numbers to some.
type Quoted string

// Marshal writes a value as YAML in block style that PyYAML's safe_load reads
// back as equal types. It takes nil, bool, int, int64, *big.Int, float64, string,
// Quoted, time.Time, []any, []string, *Map, map[string]any (always sorted) and *Node.
func Marshal(v any, o MarshalOptions) ([]byte, error) {
	e := &encoder{sortKeys: o.SortKeys}
	e.out.Grow(1 << 10)
	if err := e.document(v); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return e.out.Bytes(), nil
}

type encoder struct {
	out      bytes.Buffer
	sortKeys bool
}

func (e *encoder) document(v any) error {
	v = plainValue(v)
	if !isBlock(v) {
		text, err := formatScalar(v)
		e.out.WriteString(text + "\n")
		return err
	}
	return e.block(v, 0)
}

// plainValue brings the accepted Go types down to scalars, []any and *Map.
func plainValue(v any) any {
	switch v := v.(type) {
	case *Node:
		return v.Data()
	case []string:
		items := make([]any, len(v))
		for i := range v {
			items[i] = v[i]
		}
		return items
	case map[string]any:
		m := &Map{}
		for _, k := range sortedKeys(v) {
			m.Set(k, v[k])
		}
		return m
	default:
		return v
	}
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// isBlock reports whether a value is written on lines of its own.
func isBlock(v any) bool {
	switch v := v.(type) {
	case []any:
		return len(v) > 0
	case *Map:
		return v.Len() > 0
	default:
		return false
	}
}

// block writes a list or mapping that is not empty. The first line is not
// indented: the caller has written what stands before it.
func (e *encoder) block(v any, indent int) error {
	if items, ok := v.([]any); ok {
		for i, item := range items {
			e.pad(i, indent)
			e.out.WriteString("- ")
			if err := e.item(item, indent+2); err != nil {
				return err
			}
		}
		return nil
	}
	entries := v.(*Map).entries
	if e.sortKeys {
		entries = slices.Clone(entries)
		sortEntries(entries)
	}
	for i, entry := range entries {
		e.pad(i, indent)
		if err := e.entry(entry, indent); err != nil {
			return err
		}
	}
	return nil
}

func (e *encoder) pad(i, indent int) {
	if i > 0 {
		e.out.WriteString(strings.Repeat(" ", indent))
	}
}

// item writes an element of a list, whose dash is written already.
func (e *encoder) item(v any, indent int) error {
	v = plainValue(v)
	if isBlock(v) {
		return e.block(v, indent)
	}
	text, err := formatScalar(v)
	e.out.WriteString(text + "\n")
	return err
}

// maxSimpleKey is the length (in characters, quotes included) from which readers
// want a key to be marked by a question mark.
const maxSimpleKey = 1000

func (e *encoder) entry(entry Entry, indent int) error {
	key, err := formatScalar(entry.Key)
	if err != nil {
		return fmt.Errorf("key %v: %w", entry.Key, err)
	}
	if utf8.RuneCountInString(key) > maxSimpleKey {
		key = "? " + key + "\n" + strings.Repeat(" ", indent)
	}
	e.out.WriteString(key + ":")
	v := plainValue(entry.Value)
	if !isBlock(v) {
		text, err := formatScalar(v)
		if err != nil {
			return fmt.Errorf("value of %s: %w", key, err)
		}
		e.out.WriteString(" " + text + "\n")
		return nil
	}
	e.out.WriteByte('\n')
	if _, isMap := v.(*Map); isMap {
		indent += 2
	}
	e.out.WriteString(strings.Repeat(" ", indent))
	return e.block(v, indent)
}

// sortEntries sorts by key where all keys are strings, as PyYAML does.
func sortEntries(entries []Entry) {
	for _, e := range entries {
		if _, ok := e.Key.(string); !ok {
			return
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Key.(string), b.Key.(string)) })
}

func formatScalar(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "null", nil
	case bool:
		return strconv.FormatBool(v), nil
	case int:
		return strconv.Itoa(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case *big.Int:
		return v.String(), nil
	case float64:
		return formatFloat(v), nil
	case time.Time:
		return formatTime(v), nil
	case string:
		return formatString(v, false)
	case Quoted:
		return formatString(string(v), true)
	case []any:
		return "[]", nil
	case *Map:
		return "{}", nil
	default:
		return "", fmt.Errorf("cannot write a %T", v)
	}
}

// formatFloat writes a float so that it has a dot and a signed exponent.
func formatFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return ".nan"
	case math.IsInf(f, 1):
		return ".inf"
	case math.IsInf(f, -1):
		return "-.inf"
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e16) {
		format = 'e'
	}
	text := strconv.FormatFloat(f, format, -1, 64)
	if mantissa, exponent, ok := strings.Cut(text, "e"); ok && !strings.Contains(mantissa, ".") {
		return mantissa + ".0e" + exponent
	}
	if !strings.Contains(text, ".") {
		text += ".0"
	}
	return text
}

func formatTime(t time.Time) string {
	if IsDate(t) {
		return t.Format(time.DateOnly)
	}
	if isLocal(t) {
		return t.Format("2006-01-02 15:04:05.999999")
	}
	return t.Format("2006-01-02 15:04:05.999999-07:00")
}

// Bytes that need no quotes, if the text does not also read as another type: at
// its beginning and further on. Narrower than the grammar, so that it is surely
// right. Every string of every file passes here, so these are tables.
var (
	plainFirst = byteSet("_./~+$^(")
	plainRest  = byteSet("_./~+$^()%@=*;<>&!|{}[],?'\"\\ :#-")
)

// byteSet has the letters, the digits and the given bytes.
func byteSet(others string) (set [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" + others) {
		set[c] = true
	}
	return set
}

func isPlainText(s string) bool {
	if s == "" || !plainFirst[s[0]] {
		return false
	}
	for i := 1; i < len(s); i++ {
		if !plainRest[s[i]] {
			return false
		}
	}
	return true
}

// formatString writes a string: plain if that is safe and allowed, else in single
// quotes, in double quotes where there is something to escape.
func formatString(s string, quote bool) (string, error) {
	if !utf8.ValidString(s) {
		return "", fmt.Errorf("the string %q is not UTF-8", s)
	}
	if !quote && isPlain(s) {
		return s, nil
	}
	for _, c := range s {
		if !printable(c) || strings.ContainsRune("\t\r\n\u0085\u2028\u2029\ufeff", c) {
			return doubleQuoted(s), nil
		}
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'", nil
}

func isPlain(s string) bool {
	if !isPlainText(s) || strings.HasPrefix(s, "...") || strings.HasSuffix(s, " ") || strings.HasSuffix(s, ":") ||
		strings.Contains(s, ": ") || strings.Contains(s, " #") {
		return false
	}
	v, err := resolve(s)
	_, isString := v.(string)
	return err == nil && isString
}

func doubleQuoted(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\t':
			b.WriteString(`\t`)
		case c >= 0x20 && c <= 0x7e:
			b.WriteRune(c)
		case c <= 0xff:
			fmt.Fprintf(&b, `\x%02X`, c)
		case c <= 0xffff:
			fmt.Fprintf(&b, `\u%04X`, c)
		default:
			fmt.Fprintf(&b, `\U%08X`, c)
		}
	}
	b.WriteByte('"')
	return b.String()
}
