package label

import (
	"regexp"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// The years that the uenv client (9.x) reads. One date outside them makes it reject
// a whole listing, or every query of its database.
const (
	FirstYear = 2022
	LastYear  = 2050
)

// ClientReads tells whether the client reads a date.
func ClientReads(t time.Time) bool {
	year := t.UTC().Year()
	return FirstYear <= year && year <= LastYear
}

// component is a part of a repository's path in the OCI distribution specification 1.1.
var component = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$`)

// RegistryHint says what RegistryPath lets through.
const RegistryHint = "registries allow lower-case letters and digits, separated by single '.', '_', '-' or '/'"

// RegistryPath tells whether every registry allows a path, or part of one: not each
// label can be published.
func RegistryPath(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if !component.MatchString(part) {
			return false
		}
	}
	return true
}

// ByDigest tells whether l, of which only the name, system and microarchitecture count,
// may name an image by its id or digest: 16 or 64 digits, or sha256: and 64.
func (l Label) ByDigest() bool { return l.digits() != "" }

func (l Label) digits() string {
	digits := l.Name
	if digits == digest.SHA256.String() && l.Tag != "" {
		digits, l.Tag = l.Tag, ""
	}
	if l.Version != "" || l.Tag != "" || len(digits) != 16 && len(digits) != 64 || strings.Trim(digits, "0123456789abcdef") != "" {
		return ""
	}
	return digits
}

// MatchDigest tells whether pattern names the image with label l by its id or digest.
func (l Label) MatchDigest(pattern Label, d digest.Digest) bool {
	digits := pattern.digits()
	pattern.Name, pattern.Tag = "", ""
	return digits != "" && d != "" && (digits == ID(d) || digits == d.Encoded()) && l.Match(pattern, false)
}

// ID returns the short name that the uenv client has for an image: the first 16
// hexadecimal digits of its digest, which must be valid.
func ID(d digest.Digest) string { return d.Encoded()[:16] }
