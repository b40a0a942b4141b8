package squashfs

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// source is a file of the tree, open while workers read blocks of it.
type source struct {
	fd   int
	n    *node
	tree *tree
	left atomic.Int64 // readers that have yet to call release
	bad  atomic.Bool  // one of them failed

	finished func() // called when all have succeeded; may be nil
	once     sync.Once
}

// openSource opens the file of n for so many readers, each of which must call
// release. It also reads the extended attributes of n.
func (t *tree) openSource(n *node, readers int) (*source, error) {
	d := directories{tree: t}
	defer d.close()
	return d.open(n, readers)
}

// directories opens files of one directory after the other.
type directories struct {
	tree *tree
	at   *node // the directory that is open
	fd   int
}

func (d *directories) close() {
	if d.at != nil {
		unix.Close(d.fd)
		d.at = nil
	}
}

func (d *directories) open(n *node, readers int) (*source, error) {
	err := d.enter(n.parent)
	if err != nil {
		return nil, err
	}
	s := &source{n: n, tree: d.tree}
	s.left.Store(int64(readers))
	if s.fd, err = openFile(d.fd, n.name); err != nil {
		return nil, s.opening(err)
	}
	if !n.opened {
		n.opened = true
		if n.xattrs, err = readXattrs(s.fd, n.name); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// enter opens a directory, if it is not the one that is open.
func (d *directories) enter(dir *node) error {
	if d.at == dir {
		return nil
	}
	d.close()
	path := d.tree.pathOf(dir)
	err := retry(func() (err error) {
		d.fd, err = unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return changed(path, &os.PathError{Op: "open", Path: path, Err: err})
	}
	d.at = dir
	return nil
}

// openFile opens a file of a directory for reading. Should it have become
// something else meanwhile, that is neither followed nor waited for.
func openFile(dir int, name string) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Openat(dir, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

func (s *source) path() string { return s.tree.pathOf(s.n) }

// opening explains why a file could not be opened.
func (s *source) opening(err error) error {
	err = &os.PathError{Op: "open", Path: s.path(), Err: err}
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return changed(s.path(), err)
	}
	return err
}

// read fills b from offset off.
func (s *source) read(b []byte, off int64) error {
	for len(b) > 0 {
		n, err := unix.Pread(s.fd, b, off)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return &os.PathError{Op: "read", Path: s.path(), Err: err}
		case n == 0:
			return changed(s.path(), errors.New("it is shorter than it was"))
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

// hole tells whether the file has no data in a range, as far as the file
// system knows.
func (s *source) hole(off, size int64) bool {
	next, err := unix.Seek(s.fd, off, unix.SEEK_DATA)
	return err == unix.ENXIO || err == nil && next >= off+size
}

// release is called once by each reader with its error, which it returns. The
// last one closes the file and finds out whether it was changed since the scan.
func (s *source) release(err error) error {
	if err != nil {
		s.bad.Store(true)
	}
	if s.left.Add(-1) > 0 {
		return err
	}
	defer s.close()
	if err == nil && !s.bad.Load() {
		err = s.unchanged()
		if err == nil && s.finished != nil {
			s.finished()
		}
	}
	return err
}

func (s *source) unchanged() error {
	var st unix.Stat_t
	if err := retry(func() error { return unix.Fstat(s.fd, &st) }); err != nil {
		return &os.PathError{Op: "stat", Path: s.path(), Err: err}
	}
	if stampOf(&st) != s.n.stamp {
		return changed(s.path(), errors.New("its size, times or identity are not those it had"))
	}
	return nil
}

func (s *source) close() { s.once.Do(func() { unix.Close(s.fd) }) }

// sum is a fingerprint of some content, good for comparisons within one run.
type sum [aes.BlockSize]byte

// hasher computes fingerprints: AES-GMAC, many times as fast as SHA-256, under a
// key drawn for each run, or for a chain of images of which each is the base of the
// next. As nobody else knows the key, nobody can prepare contents that collide; two
// that differ have the same sum with a probability below 2⁻¹⁰⁰. Sums decide only
// what is equal, so the image does not depend on the key.
type hasher struct {
	aead  cipher.AEAD
	nonce []byte
}

func newHasher(key tableKey) (hasher, error) {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return hasher{}, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return hasher{}, err
	}
	return hasher{aead, make([]byte, aead.NonceSize())}, nil
}

func (h hasher) sum(data []byte) (s sum) {
	h.aead.Seal(s[:0], h.nonce, nil, data)
	return s
}
