package registry

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// chunkSize is the unit in which a download is remembered, in bytes.
const chunkSize = 1 << 20

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// journal remembers which chunks of a partial file were written, with a checksum
// of each. After a crash the file may lack what the journal claims: a chunk is
// believed only if its checksum is right, so neither needs to reach the disk
// before the other.
type journal struct {
	mu sync.Mutex
	f  *os.File
}

// A record is the chunk's number, its CRC-32C, and the CRC-32C of these two, all
// 32 bits, little endian.
const recordSize = 12

// journalHeader ties a journal to one blob and one way of cutting it.
func journalHeader(d ocispec.Descriptor) string {
	return fmt.Sprintf("uenv-ci download 1 %s %d %d\n", d.Digest, d.Size, chunkSize)
}

// openJournal opens or creates the journal at path and returns what it claims. The
// journal of another blob is emptied.
func openJournal(path string, d ocispec.Descriptor) (*journal, map[int]uint32, error) {
	f, err := openPlain(path)
	if err != nil {
		return nil, nil, err
	}
	claims, end, err := readJournal(f, d)
	if err == nil {
		err = f.Truncate(end)
	}
	if err == nil {
		_, err = f.Seek(end, io.SeekStart)
	}
	if err == nil && end == 0 {
		_, err = f.WriteString(journalHeader(d))
	}
	if err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("open journal: %w", err)
	}
	return &journal{f: f}, claims, nil
}

// readJournal reads records up to the first that is torn, and tells where that is.
func readJournal(f io.Reader, d ocispec.Descriptor) (claims map[int]uint32, end int64, err error) {
	claims = map[int]uint32{}
	r := bufio.NewReader(f)
	header := make([]byte, len(journalHeader(d)))
	if _, err := io.ReadFull(r, header); err != nil || string(header) != journalHeader(d) {
		return claims, 0, nil
	}
	end = int64(len(header))
	var record [recordSize]byte
	for {
		_, err := io.ReadFull(r, record[:])
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return claims, end, nil
		}
		if err != nil {
			return nil, 0, err
		}
		chunk := binary.LittleEndian.Uint32(record[:])
		if crc32.Checksum(record[:8], crcTable) != binary.LittleEndian.Uint32(record[8:]) || int64(chunk) >= chunksOf(d.Size) {
			return claims, end, nil
		}
		claims[int(chunk)] = binary.LittleEndian.Uint32(record[4:])
		end += recordSize
	}
}

func chunksOf(size int64) int64 { return (size + chunkSize - 1) / chunkSize }

// add claims a chunk that was written.
func (j *journal) add(chunk int, sum uint32) error {
	var record [recordSize]byte
	binary.LittleEndian.PutUint32(record[:], uint32(chunk))
	binary.LittleEndian.PutUint32(record[4:], sum)
	binary.LittleEndian.PutUint32(record[8:], crc32.Checksum(record[:8], crcTable))
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err := j.f.Write(record[:])
	return err
}

func (j *journal) Close() error { return j.f.Close() }

// journalled returns how many bytes of d a journal claims; it may be in use by
// another process.
func journalled(path string, d ocispec.Descriptor) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	records := (info.Size() - int64(len(journalHeader(d)))) / recordSize
	return max(0, min(records*chunkSize, d.Size))
}
