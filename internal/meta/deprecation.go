package meta

import "github.com/opencontainers/go-digest"

// DeprecationVersion is the version of the deprecation record that we write.
const DeprecationVersion = 1

// The states of a deprecation record.
const (
	Active    = "active"
	Withdrawn = "withdrawn" // takes back the deprecations before it
)

// Deprecation is a record attached to an image that users should leave, or that
// takes this back. Records are only ever added; the newest one holds.
type Deprecation struct {
	Version     int           `json:"version"`
	State       string        `json:"state"` // Active or Withdrawn
	When        Time          `json:"when"`
	Who         string        `json:"who"`
	Image       digest.Digest `json:"image"` // of the manifest
	Reason      string        `json:"reason"`
	Replacement string        `json:"replacement,omitempty"` // a label
	Until       *Date         `json:"until,omitempty"`       // the last day of support
}

// ParseDeprecation reads a deprecation record.
func ParseDeprecation(data []byte) (Deprecation, error) {
	var d Deprecation
	if err := decode(data, maxRecord, "deprecation", DeprecationVersion, &d); err != nil {
		return Deprecation{}, err
	}
	if err := d.validate(); err != nil {
		return Deprecation{}, err
	}
	d.When = At(d.When.Time)
	return d, nil
}

// Encode returns the record's text: the same bytes for the same content.
func (d Deprecation) Encode() ([]byte, error) {
	d.Version, d.When = DeprecationVersion, At(d.When.Time)
	if err := d.validate(); err != nil {
		return nil, err
	}
	return encode(d)
}

func (d Deprecation) validate() error {
	switch {
	case d.State != Active && d.State != Withdrawn:
		return invalid("deprecation: unknown state %q", d.State)
	case d.When.IsZero():
		return invalid("deprecation: when: missing")
	case blank(d.Who):
		return invalid("deprecation: who: missing")
	case blank(d.Reason):
		return invalid("deprecation: reason: missing")
	case d.Image.Validate() != nil:
		return invalid("deprecation: image: %q is not a digest", d.Image)
	}
	return nil
}

// Annotations returns what the record's artifact carries.
func (d Deprecation) Annotations() map[string]string {
	return map[string]string{AnnotationState: d.State, AnnotationWhen: FormatTime(d.When.Time)}
}
