package localrepo

import (
	"context"
	"io"

	"github.com/opencontainers/go-digest"
)

const hashBuffer = 1 << 20

// HashFile returns the digest of a file's content. The function, if any, is told
// of every block that was read, in bytes. Reading does not count as using the file.
func HashFile(ctx context.Context, path string, read func(n int)) (digest.Digest, error) {
	file, err := openQuietly(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := digest.SHA256.Digester()
	buffer := make([]byte, hashBuffer)
	for {
		if err := context.Cause(ctx); err != nil {
			return "", err
		}
		n, err := file.Read(buffer)
		hash.Hash().Write(buffer[:n])
		if read != nil {
			read(n)
		}
		if err == io.EOF {
			return hash.Digest(), nil
		}
		if err != nil {
			return "", err
		}
	}
}
