package yamlpos

import (
	"fmt"
	"slices"
)

// Entry is one key and value of a Map.
type Entry struct {
	Key   any // a scalar: nil, bool, int64, *big.Int, float64, string or time.Time
	Value any
}

// Map is a mapping that keeps the order of its keys. The zero value is empty and
// ready for use; a nil *Map reads as empty.
type Map struct {
	entries []Entry
	index   map[any]int // by hashable form of the key; nil for a small map
}

// smallMap is the number of entries up to which looking through them costs less
// than an index: most maps have fewer.
const smallMap = 16

// NewMap returns a map of alternating keys and values. It panics on an odd
// number of arguments or a key that is not a string, both being mistakes of
// the program, not of its input.
func NewMap(kv ...any) *Map {
	if len(kv)%2 != 0 {
		panic("yamlpos.NewMap: odd number of arguments")
	}
	m := &Map{entries: make([]Entry, 0, len(kv)/2)}
	for i := 0; i < len(kv); i += 2 {
		m.Set(kv[i].(string), kv[i+1])
	}
	return m
}

// hashable returns a form of a key that a Go map can hold. Numbers and booleans
// that Python takes for the same dictionary key (1, 1.0, true) are the same here.
func hashable(key any) any {
	switch k := key.(type) {
	case nil, int64, string:
		return k
	case bool:
		if k {
			return int64(1)
		}
		return int64(0)
	case float64:
		if i := int64(k); float64(i) == k {
			return i
		}
		return k
	default:
		return fmt.Sprintf("%T %v", k, k)
	}
}

func (m *Map) setKey(key, value any) {
	c := hashable(key)
	if i := m.find(c); i >= 0 {
		m.entries[i].Value = value
		return
	}
	m.entries = append(m.entries, Entry{key, value})
	switch {
	case m.index != nil:
		m.index[c] = len(m.entries) - 1
	case len(m.entries) > smallMap:
		m.reindex()
	}
}

// find returns the place of a key in its hashable form, -1 where there is none.
func (m *Map) find(key any) int {
	if m.index != nil {
		if i, ok := m.index[key]; ok {
			return i
		}
		return -1
	}
	return slices.IndexFunc(m.entries, func(e Entry) bool { return hashable(e.Key) == key })
}

func (m *Map) reindex() {
	m.index = make(map[any]int, 2*len(m.entries))
	for i, e := range m.entries {
		m.index[hashable(e.Key)] = i
	}
}

// Get returns the value below a string key.
func (m *Map) Get(key string) (any, bool) {
	if m == nil {
		return nil, false
	}
	i := m.find(key)
	if i < 0 {
		return nil, false
	}
	return m.entries[i].Value, true
}

// Set puts a value below a string key: in place if the key exists, else last.
func (m *Map) Set(key string, value any) { m.setKey(key, value) }

// Delete removes a string key; it does nothing where there is none.
func (m *Map) Delete(key string) {
	if m == nil {
		return
	}
	at := m.find(key)
	if at < 0 {
		return
	}
	m.entries = slices.Delete(m.entries, at, at+1)
	if m.index != nil {
		m.reindex()
	}
}

// Keys returns the keys in order. Keys that are not strings appear as text.
func (m *Map) Keys() []string {
	if m == nil {
		return nil
	}
	keys := make([]string, len(m.entries))
	for i, e := range m.entries {
		keys[i] = fmt.Sprint(e.Key)
	}
	return keys
}

// Entries returns the entries in order, keys as their Go values.
func (m *Map) Entries() []Entry {
	if m == nil {
		return nil
	}
	return append([]Entry(nil), m.entries...)
}

// Len returns the number of entries.
func (m *Map) Len() int {
	if m == nil {
		return 0
	}
	return len(m.entries)
}

// Clone returns a deep copy: nested maps and lists are copied too.
func (m *Map) Clone() *Map {
	if m == nil {
		return nil
	}
	c := &Map{entries: make([]Entry, 0, len(m.entries))}
	for _, e := range m.entries {
		c.setKey(e.Key, cloneValue(e.Value))
	}
	return c
}

func cloneValue(v any) any {
	switch v := v.(type) {
	case *Map:
		return v.Clone()
	case []any:
		c := make([]any, len(v))
		for i := range v {
			c[i] = cloneValue(v[i])
		}
		return c
	case []string:
		return append([]string(nil), v...)
	default:
		return v
	}
}
