package registry

import (
	"errors"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/fault"
)

// errContent marks content that is not what its descriptor says.
var errContent = errors.New("content does not match its descriptor")

// verifier reads content and checks it at its end: io.EOF comes only after
// exactly the right number of bytes with the right digest.
type verifier struct {
	rc   io.ReadCloser
	d    ocispec.Descriptor
	hash hash.Hash
	left int64
	err  error
}

func newVerifier(rc io.ReadCloser, d ocispec.Descriptor) *verifier {
	return &verifier{rc: rc, d: d, hash: d.Digest.Algorithm().Hash(), left: d.Size}
}

func (v *verifier) Read(b []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if len(b) == 0 {
		return 0, nil
	}
	if v.left == 0 {
		v.err = v.finish()
		return 0, v.err
	}
	n, err := v.rc.Read(b[:min(int64(len(b)), v.left)])
	v.hash.Write(b[:n])
	v.left -= int64(n)
	switch {
	case errors.Is(err, io.EOF) && v.left > 0:
		v.err = fault.New(fault.Network, "%w: it ends %d bytes before its %d bytes: %w", errContent, v.left, v.d.Size, io.ErrUnexpectedEOF)
		return n, v.err
	case err != nil && !errors.Is(err, io.EOF):
		v.err = err
		return n, v.err
	}
	return n, nil
}

// finish looks for surplus bytes and compares the digest.
func (v *verifier) finish() error {
	var surplus [1]byte
	n, err := io.ReadFull(v.rc, surplus[:])
	switch {
	case n > 0:
		return fault.New(fault.Network, "%w: it goes on after its %d bytes", errContent, v.d.Size)
	case err != nil && !errors.Is(err, io.EOF):
		return err
	}
	if got := digest.NewDigest(v.d.Digest.Algorithm(), v.hash); got != v.d.Digest {
		return fault.New(fault.Network, "%w: its digest is %s, not %s", errContent, got, v.d.Digest)
	}
	return io.EOF
}

func (v *verifier) Close() error { return v.rc.Close() }

// checkContent compares content that is in memory with its descriptor.
func checkContent(data []byte, d ocispec.Descriptor) error {
	if int64(len(data)) != d.Size {
		return fault.New(fault.Network, "%w: it has %d bytes, not %d", errContent, len(data), d.Size)
	}
	if got := d.Digest.Algorithm().FromBytes(data); got != d.Digest {
		return fault.New(fault.Network, "%w: its digest is %s, not %s", errContent, got, d.Digest)
	}
	return nil
}
