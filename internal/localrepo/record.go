package localrepo

import (
	"cmp"
	"regexp"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

const dateLayout = "2006-01-02 15:04:05"

// Record is one label in the repository and the image that it names.
type Record struct {
	Label  label.Label   `json:"label"`   // without namespace
	Digest digest.Digest `json:"digest"`  // the image's identity: its manifest's digest, or the file's for an added one
	ID     string        `json:"id"`      // label.ID of the digest
	Date   time.Time     `json:"created"` // in UTC; zero if the stored text is no date
	Size   int64         `json:"size"`    // of store.squashfs, bytes
}

// check returns an error if other programs could not work with the record.
func (rec Record) check() error {
	for _, p := range []struct{ name, value string }{
		{"name", rec.Label.Name}, {"version", rec.Label.Version}, {"tag", rec.Label.Tag},
		{"system", rec.Label.System}, {"uarch", rec.Label.UArch},
	} {
		if !label.Valid(p.value) {
			return fault.New(fault.Usage, "label %s: %q cannot be its %s", rec.Label, p.value, p.name)
		}
	}
	if err := checkDigest(rec.Digest); err != nil {
		return err
	}
	if !label.ClientReads(rec.Date) {
		return fault.New(fault.Invalid, "image %s: its date %s is outside %d–%d", label.ID(rec.Digest), rec.Date.UTC().Format(time.DateOnly), label.FirstYear, label.LastYear)
	}
	if rec.Size < 0 {
		return fault.New(fault.Invalid, "image %s: its size %d is negative", label.ID(rec.Digest), rec.Size)
	}
	return nil
}

func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
		return fault.New(fault.Invalid, "%q is not a sha256 digest", d)
	}
	return nil
}

// compare orders records as the client lists them.
func compare(a, b Record) int {
	return cmp.Or(
		cmp.Compare(a.Label.Name, b.Label.Name),
		cmp.Compare(a.Label.Version, b.Label.Version),
		cmp.Compare(a.Label.Tag, b.Label.Tag),
		cmp.Compare(a.Label.System, b.Label.System),
		cmp.Compare(a.Label.UArch, b.Label.UArch),
		a.Date.Compare(b.Date),
		cmp.Compare(a.Digest, b.Digest),
	)
}

var datePattern = regexp.MustCompile(`^(\d{4}-\d{1,2}-\d{1,2})(?:[ T](\d{1,2}:\d{1,2}:\d{1,2})(?:\.\d*)?(?:Z|[+]00:00)?)?$`)

// parseDate reads the forms that are found in repositories.
func parseDate(s string) (time.Time, bool) {
	m := datePattern.FindStringSubmatch(s)
	if m == nil {
		return time.Time{}, false
	}
	text, layout := m[1], "2006-1-2"
	if m[2] != "" {
		text, layout = text+" "+m[2], layout+" 15:4:5"
	}
	t, err := time.Parse(layout, text)
	return t, err == nil
}
