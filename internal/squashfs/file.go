package squashfs

import (
	"io"
	"io/fs"
)

// File is an open regular file of an image. ReadAt is safe for concurrent use,
// the other methods are not.
type File struct {
	content *content
	info    *fileInfo
	name    string
	pos     int64
	closed  bool
}

var (
	_ io.ReadSeekCloser = (*File)(nil)
	_ io.ReaderAt       = (*File)(nil)
	_ io.WriterTo       = (*File)(nil)
)

// Stat implements fs.File.
func (f *File) Stat() (fs.FileInfo, error) { return f.info, nil }

// Close implements fs.File.
func (f *File) Close() error {
	if f.closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	return nil
}

// Read implements io.Reader.
func (f *File) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.pos)
	f.pos += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if f.closed {
		return 0, pathError("read", f.name, fs.ErrClosed)
	}
	n, err := f.content.readAt(p, off)
	if err != nil && err != io.EOF {
		err = pathError("read", f.name, err)
	}
	return n, err
}

// Seek implements io.Seeker.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.pos
	case io.SeekEnd:
		offset += f.info.size
	}
	if offset < 0 || whence < io.SeekStart || whence > io.SeekEnd {
		return 0, pathError("seek", f.name, fs.ErrInvalid)
	}
	f.pos = offset
	return offset, nil
}

// WriteTo implements io.WriterTo, without the cache: block by block.
func (f *File) WriteTo(w io.Writer) (int64, error) {
	if f.closed {
		return 0, pathError("read", f.name, fs.ErrClosed)
	}
	blockSize := int64(f.content.m.sb.BlockSize)
	buf := make([]byte, min(blockSize, f.info.size))
	written := int64(0)
	for f.pos < f.info.size {
		part := buf[:min(int64(len(buf)), blockSize-f.pos%blockSize, f.info.size-f.pos)]
		n, err := f.content.readAt(part, f.pos)
		if err != nil {
			return written, pathError("read", f.name, err)
		}
		n, err = w.Write(part[:n])
		f.pos += int64(n)
		written += int64(n)
		if err == nil && n < len(part) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return written, err
		}
	}
	return written, nil
}
