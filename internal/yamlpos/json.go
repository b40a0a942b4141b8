package yamlpos

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// MarshalJSON writes a value of the types that Marshal takes as JSON, keys in the
// order of the map (see Map.Sorted), ending in a newline. With an indent of 0 it
// is one line with blanks after "," and ":", as Python's json module writes it.
// Keys that are not strings become text; infinities are an error.
func MarshalJSON(v any, indent int) ([]byte, error) {
	e := &jsonEncoder{step: indent}
	if err := e.value(v, 0); err != nil {
		return nil, fmt.Errorf("write JSON: %w", err)
	}
	e.out.WriteByte('\n')
	return e.out.Bytes(), nil
}

// MarshalJSON implements json.Marshaler, keeping the order of the keys.
func (m *Map) MarshalJSON() ([]byte, error) { return MarshalJSON(m, 0) }

// Sorted returns a deep copy whose maps have their string keys sorted at every level.
func (m *Map) Sorted() *Map {
	entries := m.Entries()
	sortEntries(entries)
	s := &Map{entries: make([]Entry, 0, len(entries))}
	for _, e := range entries {
		s.setKey(e.Key, sortedValue(e.Value))
	}
	return s
}

func sortedValue(v any) any {
	switch v := plainValue(v).(type) {
	case *Map:
		return v.Sorted()
	case []any:
		items := make([]any, len(v))
		for i := range v {
			items[i] = sortedValue(v[i])
		}
		return items
	default:
		return v
	}
}

type jsonEncoder struct {
	out  bytes.Buffer
	step int // blanks by which a level is indented; 0 = all on one line
}

func (e *jsonEncoder) value(v any, level int) error {
	switch v := plainValue(v).(type) {
	case []any:
		return e.list(len(v), "[]", level, func(i int) error { return e.value(v[i], level+1) })
	case *Map:
		entries := v.Entries()
		return e.list(len(entries), "{}", level, func(i int) error {
			key, err := jsonKey(entries[i].Key)
			if err != nil {
				return err
			}
			e.text(key)
			e.out.WriteString(": ")
			return e.value(entries[i].Value, level+1)
		})
	default:
		return e.scalar(v)
	}
}

// list writes n elements between the two brackets.
func (e *jsonEncoder) list(n int, brackets string, level int, element func(int) error) error {
	e.out.WriteByte(brackets[0])
	for i := range n {
		switch {
		case i > 0 && e.step == 0:
			e.out.WriteString(", ")
		case i > 0:
			e.out.WriteByte(',')
		}
		e.newline(level + 1)
		if err := element(i); err != nil {
			return err
		}
	}
	if n > 0 {
		e.newline(level)
	}
	e.out.WriteByte(brackets[1])
	return nil
}

func (e *jsonEncoder) newline(level int) {
	if e.step > 0 {
		e.out.WriteString("\n" + strings.Repeat(" ", e.step*level))
	}
}

func (e *jsonEncoder) scalar(v any) error {
	switch v := v.(type) {
	case nil:
		e.out.WriteString("null")
	case bool:
		e.out.WriteString(strconv.FormatBool(v))
	case int:
		e.out.WriteString(strconv.Itoa(v))
	case int64:
		e.out.WriteString(strconv.FormatInt(v, 10))
	case *big.Int:
		e.out.WriteString(v.String())
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("JSON has no %v", v)
		}
		e.out.WriteString(formatFloat(v))
	case string:
		e.text(v)
	case time.Time:
		e.text(formatTime(v))
	default:
		return fmt.Errorf("cannot write a %T", v)
	}
	return nil
}

func (e *jsonEncoder) text(s string) {
	enc := json.NewEncoder(&e.out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string into a buffer cannot fail
	e.out.Truncate(e.out.Len() - 1)
}

// jsonKey writes a key as Python's json module does.
func jsonKey(key any) (string, error) {
	switch k := key.(type) {
	case string:
		return k, nil
	case nil:
		return "null", nil
	default:
		return formatScalar(k)
	}
}
