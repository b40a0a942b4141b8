package site

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/yamlpos"
)

// maxKey is the size up to which a key is read.
const maxKey = 1 << 20

// addKey reads a key: a path, absolute or relative to the mirror file, or base64
// text. It never shows what it read.
func (m *Mirrors) addKey(r *mirrorReader, n *yamlpos.Node, mirror string, private bool) {
	given, ok := n.Str()
	if !ok {
		return // the schema has refused it
	}
	path := expand(given)
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.dir, path)
	}
	inline := false
	data, err := bounded.ReadFile(path, maxKey)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENAMETOOLONG) || errors.Is(err, syscall.ENOTDIR) {
		if data, err = decodeBase64(given); err != nil {
			r.Fail(n, "give the path of a key file, or the key in base64", "the key of mirror '%s' is neither a file nor base64 text", mirror)
			return
		}
		path, inline = n.File, true
	}
	switch {
	case err != nil:
		r.Fail(n, "", "the key of mirror '%s' cannot be read: %v", mirror, err)
	case !isPGP(data):
		r.Fail(n, "", "the key of mirror '%s' is not a PGP key", mirror)
	}
	suffix := ".pub.gpg"
	if private {
		suffix = ".priv.gpg"
	}
	m.Keys = append(m.Keys, KeyFile{Path: "key_store/" + mirror + suffix, Private: private, Data: data, File: path, Inline: inline})
}

func decodeBase64(s string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.Join(strings.Fields(s), ""))
}

// isPGP reports whether data is OpenPGP key material: with ASCII armour, or
// beginning with the packet of a key (RFC 9580, section 4.2).
func isPGP(data []byte) bool {
	for _, kind := range []string{"PRIVATE KEY BLOCK", "PUBLIC KEY BLOCK", "MESSAGE", "SIGNATURE"} {
		if bytes.HasPrefix(data, []byte("-----BEGIN PGP "+kind+"-----")) {
			return true
		}
	}
	if len(data) < 2 || data[0]&0x80 == 0 {
		return false
	}
	tag := data[0] & 0x3f
	if data[0]&0x40 == 0 { // the old format has the length's type in the last two bits
		tag >>= 2
	}
	switch tag {
	case 5, 6, 7, 14: // secret key, public key, and subkeys of both
		return true
	}
	return false
}
