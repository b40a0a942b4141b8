package chunk

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
)

// An encoded index is a line of text, and then for each chunk its length (uvarint,
// as of encoding/binary) and its sum. The chunks follow each other, so that offsets
// need not be said.
const header = "uenv chunks 1 sha256/80 %s %d %d %d\n" // digest, size, grain, number of chunks

// entrySize is what a chunk takes in an index, mostly.
const entrySize = 3 + int64(len(Sum{}))

// MaxEncoded bounds an encoded index that is read, in bytes: it describes about
// 100 GB in the blocks of squashfs images.
const MaxEncoded = 128 << 20

// Encode returns the index as it is stored, the same bytes for the same index.
func (x Index) Encode() []byte {
	data := fmt.Appendf(nil, header, x.Digest, x.Size, x.Grain, len(x.Chunks))
	for _, c := range x.Chunks {
		data = binary.AppendUvarint(data, uint64(c.Length))
		data = append(data, c.Sum[:]...)
	}
	return data
}

// Decode reads an index, which must be consistent in itself. The error has kind
// Invalid.
func Decode(data []byte) (Index, error) {
	bad := func(format string, args ...any) (Index, error) {
		return Index{}, fault.New(fault.Invalid, "chunk index: "+format, args...)
	}
	line, rest, ok := bytes.Cut(data, []byte("\n"))
	if !ok || len(data) > MaxEncoded {
		return bad("it has no header, or more than %d bytes", MaxEncoded)
	}
	var x Index
	var d string
	var count int64
	if _, err := fmt.Sscanf(string(line)+"\n", header, &d, &x.Size, &x.Grain, &count); err != nil {
		return bad("its header %.80q is not one that is known", line)
	}
	x.Digest = digest.Digest(d)
	if err := x.Digest.Validate(); err != nil || x.Size < 0 || x.Grain < 1 || x.Grain > greatestGrain || count < 0 || count > int64(len(rest))/(1+int64(len(Sum{}))) {
		return bad("its header %.80q cannot be", line)
	}
	x.Chunks = make([]Chunk, 0, count)
	at := int64(0)
	for range count {
		length, n := binary.Uvarint(rest)
		if n <= 0 || length == 0 || length > min(maxBlock, uint64(x.Size-at)) || len(rest) < n+len(Sum{}) {
			return bad("chunk %d of %d cannot be", len(x.Chunks), count)
		}
		c := Chunk{Span{at, int64(length)}, Sum(rest[n : n+len(Sum{})])}
		x.Chunks = append(x.Chunks, c)
		at, rest = c.end(), rest[n+len(Sum{}):]
	}
	if at != x.Size || len(rest) > 0 {
		return bad("it describes %d of %d bytes, and %d bytes follow", at, x.Size, len(rest))
	}
	return x, nil
}
