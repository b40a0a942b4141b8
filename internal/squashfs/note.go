package squashfs

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// noteHead starts the line in the padding behind an image, which readers ignore, that
// says what compressed it. Publishing the file later needs that, and the superblock has
// no room for it.
const (
	noteHead = "uenv-ci: "
	maxNote  = 256
)

// Compressor tells all that decides the bytes of an image besides its content:
// codec, version of its library, level and block size in bytes.
func (s Summary) Compressor() string {
	return fmt.Sprintf("%s@%s level=%d block=%d", s.Codec, s.CodecVersion, s.Level, s.BlockSize)
}

// Compressor returns what Summary.Compressor told when the image was packed, ""
// for an image that another program packed.
func (m *Image) Compressor() (string, error) {
	padding := make([]byte, maxNote)
	n, err := m.r.ReadAt(padding, int64(m.sb.BytesUsed))
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read what follows the image: %w", err)
	}
	note, ours := strings.CutPrefix(string(padding[:n]), noteHead)
	note, _, ended := strings.Cut(note, "\n")
	if !ours || !ended || strings.ContainsFunc(note, unprintable) {
		return "", nil
	}
	return note, nil
}

func unprintable(r rune) bool { return r < ' ' || r > '~' }
