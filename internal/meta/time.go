package meta

import (
	"fmt"
	"time"
)

// The fixed width makes the text order the order in time.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// FormatTime writes a time as our documents and annotations hold it: RFC 3339,
// UTC, microseconds.
func FormatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// ParseTime reads any RFC 3339 time.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return time.Time{}, fmt.Errorf("%q is not an RFC 3339 time", s)
	}
	return t.UTC(), nil
}

// Time is a moment in a document, written by FormatTime.
type Time struct{ time.Time }

// At returns t as it will read back: UTC and microseconds.
func At(t time.Time) Time { return Time{t.UTC().Truncate(time.Microsecond)} }

// MarshalText implements encoding.TextMarshaler.
func (t Time) MarshalText() ([]byte, error) { return []byte(FormatTime(t.Time)), nil }

// MarshalJSON hides the method of time.Time, which would write another form.
func (t Time) MarshalJSON() ([]byte, error) { return []byte(`"` + FormatTime(t.Time) + `"`), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *Time) UnmarshalText(b []byte) (err error) {
	t.Time, err = ParseTime(string(b))
	return err
}

// UnmarshalJSON hides the method of time.Time.
func (t *Time) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '"' {
		return fmt.Errorf("%s is not an RFC 3339 time", b)
	}
	return t.UnmarshalText(b[1 : len(b)-1])
}

// Date is a day, the last on which something holds.
type Date struct{ time.Time }

// ParseDate reads YYYY-MM-DD.
func ParseDate(s string) (Date, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return Date{}, fmt.Errorf("%q is not a date of the form YYYY-MM-DD", s)
	}
	return Date{t}, nil
}

// String returns YYYY-MM-DD.
func (d Date) String() string { return d.Format(time.DateOnly) }

// Over tells whether the whole day (UTC) lies before t.
func (d Date) Over(t time.Time) bool { return !t.Before(d.AddDate(0, 0, 1)) }

// MarshalJSON hides the method of time.Time, which would write another form.
func (d Date) MarshalJSON() ([]byte, error) { return []byte(`"` + d.String() + `"`), nil }

// UnmarshalJSON hides the method of time.Time.
func (d *Date) UnmarshalJSON(b []byte) (err error) {
	if len(b) < 2 || b[0] != '"' {
		return fmt.Errorf("%s is not a date of the form YYYY-MM-DD", b)
	}
	*d, err = ParseDate(string(b[1 : len(b)-1]))
	return err
}
