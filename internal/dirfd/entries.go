package dirfd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Entry is a name in a directory.
type Entry struct {
	Name string
	Kind Kind
}

// Kind is what a directory says about the kind of an entry.
type Kind uint8

// Other is also what some file systems say of every entry.
const (
	Other Kind = iota
	Regular
	Directory
)

// Entries returns what is in the directory, in no order.
func (d *Dir) Entries() ([]Entry, error) {
	var entries []Entry
	buffer := make([]byte, 2<<10)
	for {
		n := 0
		err := retry(func() (err error) { n, err = unix.Getdents(d.fd, buffer); return err })
		if err != nil || n == 0 {
			return entries, os.NewSyscallError("getdents64", err)
		}
		if entries, err = appendEntries(entries, buffer[:n]); err != nil {
			return nil, err
		}
	}
}

// appendEntries decodes records of getdents64(2): inode and offset, 8 bytes each,
// the record's length, 2, the type, 1, and the name with a zero behind it.
func appendEntries(entries []Entry, records []byte) ([]Entry, error) {
	const lengthAt, typeAt, nameAt = 16, 18, 19
	for len(records) > 0 {
		if len(records) < nameAt {
			return nil, errors.New("getdents64: a record is cut off")
		}
		length := int(binary.NativeEndian.Uint16(records[lengthAt:]))
		if length < nameAt || length > len(records) {
			return nil, errors.New("getdents64: a record has a wrong length")
		}
		name, _, _ := bytes.Cut(records[nameAt:length], []byte{0})
		e := Entry{Name: string(name), Kind: kindOf(records[typeAt])}
		if e.Name != "." && e.Name != ".." {
			entries = append(entries, e)
		}
		records = records[length:]
	}
	return entries, nil
}

func kindOf(direntType byte) Kind {
	switch direntType {
	case unix.DT_REG:
		return Regular
	case unix.DT_DIR:
		return Directory
	}
	return Other
}
