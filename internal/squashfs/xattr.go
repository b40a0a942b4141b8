package squashfs

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// xattr is an extended attribute with its full name, such as "user.note".
type xattr struct {
	name  string
	value []byte
}

// xattrPrefixes are the name spaces that the format knows, by their numbers.
var xattrPrefixes = [...]string{"user.", "trusted.", "security."}

const (
	xattrOutOfLine  = 1 << 8 // the value is elsewhere, where its value points
	xattrPrefixMask = 0xff
)

// packable tells whether an attribute belongs into an image: users' own, and
// the capabilities of programs. All others say something about the machine
// (labels, overlay bookkeeping) and would make images differ between machines.
func packable(name string) bool {
	return strings.HasPrefix(name, "user.") || name == "security.capability"
}

// readXattrs returns the attributes of an open file that belong into an image,
// sorted. The name is for errors.
func readXattrs(fd int, name string) ([]xattr, error) {
	var small [256]byte
	list, err := growing(small[:], func(b []byte) (int, error) { return unix.Flistxattr(fd, b) })
	if err == unix.ENOTSUP || len(list) == 0 && err == nil {
		return nil, nil
	}
	if err != nil {
		return nil, &os.PathError{Op: "list extended attributes of", Path: name, Err: err}
	}
	var all []xattr
	for key := range strings.SplitSeq(strings.TrimSuffix(string(list), "\x00"), "\x00") {
		if !packable(key) {
			continue
		}
		value, err := growing(nil, func(b []byte) (int, error) { return unix.Fgetxattr(fd, key, b) })
		if err != nil {
			return nil, &os.PathError{Op: "read extended attribute " + key + " of", Path: name, Err: err}
		}
		all = append(all, xattr{key, bytes.Clone(value)})
	}
	slices.SortFunc(all, func(a, b xattr) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

// growing calls a function that fills a buffer or says ERANGE, until the buffer
// is large enough. The size may change between two calls.
func growing(b []byte, call func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := call(b)
		switch {
		case err == unix.EINTR:
		case err == unix.ERANGE || err == nil && len(b) == 0 && n > 0:
			b = make([]byte, max(2*len(b), n, 1024))
		case err != nil:
			return nil, err
		default:
			return b[:n], nil
		}
	}
}

// xattrSets are the distinct sets of attributes in an image.
type xattrSets struct {
	sets  [][]byte // encoded
	heads []xattrID
	ids   map[string]uint32
}

// xattrID is an entry of the table that files point to.
type xattrID struct {
	Ref   uint64 // of the set
	Count uint32 // attributes in it
	Size  uint32 // bytes that listing names and values takes
}

// add returns the number of a set of attributes, noXattrs for the empty one.
func (s *xattrSets) add(set []xattr) uint32 {
	if len(set) == 0 {
		return noXattrs
	}
	data, size := encodeXattrs(set)
	if id, ok := s.ids[string(data)]; ok {
		return id
	}
	if s.ids == nil {
		s.ids = map[string]uint32{}
	}
	id := uint32(len(s.sets))
	s.ids[string(data)] = id
	s.sets = append(s.sets, data)
	s.heads = append(s.heads, xattrID{Count: uint32(len(set)), Size: size})
	return id
}

func encodeXattrs(set []xattr) (data []byte, size uint32) {
	le := binary.LittleEndian
	for _, x := range set {
		kind := slices.IndexFunc(xattrPrefixes[:], func(p string) bool { return strings.HasPrefix(x.name, p) })
		short := strings.TrimPrefix(x.name, xattrPrefixes[kind])
		data = le.AppendUint16(data, uint16(kind))
		data = le.AppendUint16(data, uint16(len(short)))
		data = append(data, short...)
		data = le.AppendUint32(data, uint32(len(x.value)))
		data = append(data, x.value...)
		size += uint32(len(x.name) + 1 + len(x.value))
	}
	return data, size
}
