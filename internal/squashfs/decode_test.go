package squashfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zlib"
	kzstd "github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// packed compresses content as squashfs images hold it.
func packed(t *testing.T, c Codec, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var err error
	switch c {
	case Zstd:
		e, _ := kzstd.NewWriter(nil)
		return e.EncodeAll(content, nil)
	case Gzip:
		w := zlib.NewWriter(&b)
		w.Write(content)
		err = w.Close()
	case Xz:
		w, newErr := xz.WriterConfig{DictCap: 1 << 20, CheckSum: xz.CRC32}.NewWriter(&b)
		if newErr != nil {
			t.Fatal(newErr)
		}
		w.Write(content)
		err = w.Close()
	case Lz4:
		dst := make([]byte, lz4.CompressBlockBound(len(content)))
		n, lzErr := lz4.CompressBlock(content, dst, nil)
		err = lzErr
		b.Write(dst[:n])
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDecoders(t *testing.T) {
	content := text(10_000, 3)
	for _, codec := range []Codec{Zstd, Gzip, Xz, Lz4} {
		d, err := newDecoder(codec)
		if err != nil {
			t.Fatal(err)
		}
		src := packed(t, codec, content)
		for _, size := range []int{10_000, 10_001, 1 << 20} {
			dst := make([]byte, size)
			if n, err := decodeSafely(d, dst, src); n != len(content) || err != nil || !bytes.Equal(dst[:n], content) {
				t.Errorf("%s into %d bytes: %d, %v", codec, size, n, err)
			}
		}
		for _, size := range []int{0, 1, 9_999} {
			if n, err := decodeSafely(d, make([]byte, size), src); err == nil {
				t.Errorf("%s into %d bytes: %d and no error", codec, size, n)
			}
		}
		for cut := range 40 {
			if n, err := decodeSafely(d, make([]byte, 20_000), src[:cut*len(src)/41]); err == nil && n == len(content) {
				t.Errorf("%s, cut short: no error", codec)
			}
		}
		r := rand.New(rand.NewPCG(7, 7))
		for range 300 {
			damaged := bytes.Clone(src)
			damaged[r.IntN(len(damaged))] ^= byte(1 + r.IntN(255))
			decodeSafely(d, make([]byte, 12_000), damaged) // must not panic, hang or write elsewhere
		}
		d.close()
	}
}

func TestXzChecksumsAndDictionaries(t *testing.T) {
	d := xzDecoder{}
	dst := make([]byte, 1<<20)
	for _, check := range []byte{xz.None, xz.CRC32, xz.CRC64, xz.SHA256} {
		var b bytes.Buffer
		w, err := xz.WriterConfig{DictCap: 1 << 16, CheckSum: check, NoCheckSum: check == xz.None}.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(text(5000, 1))
		w.Close()
		if n, err := d.decode(dst, b.Bytes()); n != 5000 || err != nil {
			t.Errorf("check %d: %d, %v", check, n, err)
		}
	}
	src := packed(t, Xz, text(5000, 1))
	huge := bytes.Clone(src)
	head := huge[xzStreamHeader:][:(int(huge[xzStreamHeader])+1)*4]
	at := bytes.Index(head, []byte{xzLZMA2, 1})
	head[at+2] = 40 // 4 GiB less one byte
	binary.LittleEndian.PutUint32(head[len(head)-4:], crc32.ChecksumIEEE(head[:len(head)-4]))
	if _, err := d.decode(dst, huge); err == nil || !strings.Contains(err.Error(), "dictionary of 4294967295 bytes") {
		t.Errorf("got %v", err)
	}
	head[at] = 4 // the x86 filter of -Xbcj
	binary.LittleEndian.PutUint32(head[len(head)-4:], crc32.ChecksumIEEE(head[:len(head)-4]))
	if _, err := d.decode(dst, huge); err == nil || !strings.Contains(err.Error(), "Xbcj") {
		t.Errorf("got %v", err)
	}
	wrong := packed(t, Xz, text(5000, 2))
	for i := len(wrong) - 1; i > 0; i-- { // the stored checksum stands before index and footer
		damaged := bytes.Clone(wrong)
		damaged[i] ^= 1
		if n, err := d.decode(dst, damaged); err == nil && !bytes.Equal(dst[:n], text(5000, 2)) {
			t.Errorf("byte %d: other content and no error", i)
		}
	}
}

func TestPanickingDecoder(t *testing.T) {
	if _, err := decodeSafely(panicking{}, nil, nil); err == nil || !strings.Contains(err.Error(), "index out of range") {
		t.Errorf("got %v", err)
	}
}

type panicking struct{ storing }

func (panicking) decode(dst, src []byte) (int, error) { return int(src[len(dst)]), nil }

func TestBlockCache(t *testing.T) {
	c := newBlockCache(10_000)
	var group sync.WaitGroup
	var mu sync.Mutex
	loads := map[int64]int{}
	for range 8 {
		group.Go(func() {
			for i := range int64(5) {
				data, next, err := c.get(blockKey{at: i}, func() ([]byte, int64, error) {
					mu.Lock()
					defer mu.Unlock()
					loads[i]++
					return bytes.Repeat([]byte{byte(i)}, 1000), i + 1, nil
				})
				if err != nil || next != i+1 || data[999] != byte(i) {
					t.Errorf("block %d: %v, %v", i, next, err)
				}
			}
		})
	}
	group.Wait()
	for i, n := range loads {
		if n != 1 {
			t.Errorf("block %d was loaded %d times", i, n)
		}
	}
	for i := range int64(100) {
		c.get(blockKey{at: i, word: 1}, func() ([]byte, int64, error) { return make([]byte, 3000), 0, nil })
		if c.used > c.limit+3200 || len(c.items) != c.order.Len() {
			t.Fatalf("%d bytes, %d items, %d in order", c.used, len(c.items), c.order.Len())
		}
	}
	failing := errors.New("unreachable")
	key := blockKey{at: 1000}
	if _, _, err := c.get(key, func() ([]byte, int64, error) { return nil, 0, failing }); err != failing {
		t.Errorf("got %v", err)
	}
	if data, _, err := c.get(key, func() ([]byte, int64, error) { return []byte{1}, 0, nil }); err != nil || len(data) != 1 {
		t.Errorf("an error was kept: %v", err)
	}
}
