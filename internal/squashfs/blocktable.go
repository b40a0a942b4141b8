package squashfs

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"uenv-ci.dev/internal/atomicfile"
)

// TableSuffix is what the name of an image's block table has behind the image's.
const TableSuffix = ".blocks"

// The encoded table: a line with its version, a line with the image's compressor,
// the key of all sums, an entry for each block, and the sum of all that.
const (
	tableHead      = "uenv-ci blocks 1\n"
	tableEntrySize = 2*len(sum{}) + 8 + 4
	maxTable       = 1 << 30 // bytes of a table that is read: more than 2 TiB of content
)

// tableKey is the key under which the sums of a table are computed. Who knows it
// can make contents with equal sums, so tables are for their owner's eyes only.
type tableKey [16]byte

func newTableKey() (k tableKey) {
	rand.Read(k[:])
	return k
}

// storedBlock is a block as an image holds it.
type storedBlock struct {
	at   uint64
	word uint32
	sum  sum // of the stored bytes
}

// blockTable tells which content an image holds where, by the sums of its blocks.
type blockTable struct {
	compressor string
	key        tableKey
	blocks     map[sum]storedBlock // by their content
}

func (t *blockTable) encode() ([]byte, error) {
	h, err := newHasher(t.key)
	if err != nil {
		return nil, err
	}
	data := make([]byte, 0, len(tableHead)+maxNote+len(t.key)+len(t.blocks)*tableEntrySize+len(sum{}))
	data = append(data, tableHead+t.compressor+"\n"...)
	data = append(data, t.key[:]...)
	for content, b := range t.blocks {
		data = append(data, content[:]...)
		data = append(data, b.sum[:]...)
		data = binary.LittleEndian.AppendUint64(data, b.at)
		data = binary.LittleEndian.AppendUint32(data, b.word)
	}
	whole := h.sum(data)
	return append(data, whole[:]...), nil
}

func decodeTable(data []byte) (*blockTable, error) {
	t := &blockTable{}
	rest, ok := bytes.CutPrefix(data, []byte(tableHead))
	if !ok {
		return nil, errors.New("it is of another format or version")
	}
	line, rest, ok := bytes.Cut(rest, []byte("\n"))
	body := len(rest) - len(t.key) - len(sum{})
	if !ok || len(line) > maxNote || body < 0 || body%tableEntrySize != 0 {
		return nil, errors.New("it is cut off")
	}
	t.compressor = string(line)
	copy(t.key[:], rest)
	h, err := newHasher(t.key)
	if err != nil {
		return nil, err
	}
	if end := len(data) - len(sum{}); h.sum(data[:end]) != sum(data[end:]) {
		return nil, errors.New("it is damaged")
	}
	t.blocks = make(map[sum]storedBlock, body/tableEntrySize)
	for entries := rest[len(t.key) : len(t.key)+body]; len(entries) > 0; entries = entries[tableEntrySize:] {
		f := fields{entries[2*len(sum{}):]}
		t.blocks[sum(entries[:len(sum{})])] = storedBlock{at: f.u64(), word: f.u32(), sum: sum(entries[len(sum{}):][:len(sum{})])}
	}
	return t, nil
}

// writeTable puts the table of an image beside it.
func writeTable(image string, t *blockTable) error {
	data, err := t.encode()
	if err != nil {
		return err
	}
	return atomicfile.WriteBytes(image+TableSuffix, 0o600, data)
}

// readTable reads the table beside an image, if nobody else can have written or
// read it.
func readTable(image string) (*blockTable, error) {
	f, err := os.OpenFile(image+TableSuffix, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o077 != 0 || int(st.Uid) != os.Geteuid() {
		return nil, errors.New("it is not a file of this user alone")
	}
	data, err := io.ReadAll(io.LimitReader(f, maxTable))
	if err != nil {
		return nil, err
	}
	return decodeTable(data)
}

// base is an earlier image whose blocks are copied where compressing the same
// content again would give the same bytes.
type base struct {
	file  *os.File
	table *blockTable
}

// openBase opens an image as a base for packing with a compressor. Without a
// table beside it one is made; if none fits there is no base, and the error says why.
func openBase(ctx context.Context, image string, spec encoderSpec, workers int) (*base, error) {
	t, err := readTable(image)
	if errors.Is(err, os.ErrNotExist) {
		t, err = deriveTable(ctx, image, spec, workers)
	} else if err != nil {
		err = fmt.Errorf("%s: %w", image+TableSuffix, err)
	}
	if err != nil {
		return nil, fmt.Errorf("read %w", err)
	}
	compressor := spec.String()
	if t.compressor != compressor {
		return nil, fmt.Errorf("%s was packed with %s, not %s", image, strings.ToValidUTF8(t.compressor, "?"), compressor)
	}
	f, err := os.Open(image)
	if err != nil {
		return nil, err
	}
	return &base{f, t}, nil
}

func (b *base) close() {
	if b != nil {
		b.file.Close()
	}
}

// fetch reads the stored form of a block of that content, if the base has it
// undamaged: into spare, unless it is raw itself that was stored.
func (b *base) fetch(h hasher, content sum, raw, spare []byte) (data []byte, known storedBlock, ok bool) {
	known, ok = b.table.blocks[content]
	size := int(known.word &^ dataRaw)
	switch {
	case !ok:
		return nil, known, false
	case known.word&dataRaw != 0:
		return raw, known, size == len(raw) && known.sum == content
	case size == 0 || size >= len(raw) || size > cap(spare):
		return nil, known, false
	}
	data = spare[:size]
	n, err := b.file.ReadAt(data, int64(known.at))
	return data, known, n == size && (err == nil || err == io.EOF) && h.sum(data) == known.sum
}
