package label

import (
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

// ID returns the short name that the uenv client has for an image: the first 16
// hexadecimal digits of its digest, which must be valid.
func ID(d digest.Digest) string { return d.Encoded()[:16] }
