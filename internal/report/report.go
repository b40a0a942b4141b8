// Package report shows the images of whole namespaces at a glance: what there is for
// each system, and what needs somebody's attention.
package report

import (
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
)

// Version is that of the document.
const Version = 1

// Image is one label of a namespace, with what is known of its image. The catalogue
// has it from annotations: it is for display.
type Image struct {
	Label       label.Label
	Digest      digest.Digest
	Size        int64      // in bytes
	Created     string     // RFC 3339, "" if it is not known
	Verdict     meta.State // on the label's own system
	Tests       meta.Counts
	Tested      string // RFC 3339, "" if it is not known
	Deprecated  bool
	Deprecation *meta.Deprecation // nil if it is not deprecated, or nothing more is known
	Problem     string            // why the image cannot be used; "" if it can
}

// Source is a namespace and the images found in it.
type Source struct {
	Namespace string
	From      string    // the catalogue's word for where the answer is from
	At        time.Time // when that was true
	Denied    []string  // repositories that may not be read
	Images    []Image
}

// Options say what to report, and how.
type Options struct {
	Registry string
	Released string // the namespace that users see, what is missing in which is told
	// Wanted are the labels, without tags, that ought to be released; nil if nobody
	// says so: then a version ought to be wherever older ones are.
	Wanted     []label.Label
	Matrix     string // the file that says so
	Restricted func(name string) bool
	Day        meta.Date // the day for which support is judged
	Soon       int       // days before its end in which support is said to end soon
}

// Report is the document.
type Report struct {
	Version    int         `json:"version"`
	Registry   string      `json:"registry"`
	Day        meta.Date   `json:"day"`
	Matrix     string      `json:"matrix,omitempty"`
	Namespaces []Namespace `json:"namespaces"`
	Attention  []Notice    `json:"attention"`
	Totals     Totals      `json:"totals"`
}

// Namespace is what is in a namespace.
type Namespace struct {
	Name    string    `json:"namespace"`
	From    string    `json:"source"`
	At      time.Time `json:"at"`
	Denied  []string  `json:"denied,omitempty"`
	Targets []Target  `json:"targets"` // ordered
	Uenvs   []Uenv    `json:"uenvs"`
	Totals  Totals    `json:"totals"`
}

// Target is a system and microarchitecture.
type Target struct {
	System string `json:"system"`
	UArch  string `json:"uarch"`
	Totals Totals `json:"totals"`
}

// String is the target as labels have it.
func (t Target) String() string { return t.System + "%" + t.UArch }

// Totals count labels, and images once however many labels they have.
type Totals struct {
	Labels int   `json:"labels"`
	Images int   `json:"images"`
	Bytes  int64 `json:"bytes"` // of the images
}

// Uenv is one version of a user environment.
type Uenv struct {
	Name       string `json:"name"`
	Version    string `json:"version"`
	Restricted bool   `json:"restricted,omitempty"`
	Cells      []Cell `json:"targets"` // ordered; only those with an image, or where one is missing
}

// Cell is what there is of a version for a system and microarchitecture: images, or
// the reason why there ought to be one.
type Cell struct {
	System  string   `json:"system"`
	UArch   string   `json:"uarch"`
	Newest  *Tagged  `json:"newest,omitempty"`
	Older   []Tagged `json:"older,omitempty"`   // newest first
	Missing string   `json:"missing,omitempty"` // InMatrix or LikeOthers
}

// Why an image is said to be missing.
const (
	InMatrix   = "matrix"   // the matrix deploys the version there
	LikeOthers = "versions" // it is the newest version, and older ones are there
)

// Tagged is a tag and its image.
type Tagged struct {
	Tag        string        `json:"tag"`
	Digest     digest.Digest `json:"digest"`
	ID         string        `json:"id"`
	Size       int64         `json:"size"`
	Created    string        `json:"created,omitempty"`
	Verdict    meta.State    `json:"verdict"`
	Tests      meta.Counts   `json:"tests"`
	Tested     string        `json:"tested,omitempty"`
	Support    Support       `json:"support"`
	Reason     string        `json:"reason,omitempty"`      // of the deprecation
	ReplacedBy string        `json:"replaced_by,omitempty"` // a label
	Until      *meta.Date    `json:"until,omitempty"`       // the last day of support
	Problem    string        `json:"problem,omitempty"`
}

// Support is whether users may rely on an image.
type Support string

// The states of support.
const (
	Supported  Support = "supported"
	Deprecated Support = "deprecated" // support ends on a later day, or nobody says when
	Expiring   Support = "expiring"   // it ends soon
	Expired    Support = "expired"    // it has ended
)

// Notice is something that needs attention.
type Notice struct {
	Kind  Kind        `json:"kind"`
	Label label.Label `json:"label"` // without a tag if there is no image
	Text  string      `json:"text"`
}

// Kind is why something needs attention.
type Kind string

// The kinds, the most urgent first.
const (
	KindUnusable   Kind = "unusable"   // no image that clients can use
	KindFailing    Kind = "failing"    // its tests failed
	KindExpired    Kind = "expired"    // its support has ended, and it is still there
	KindExpiring   Kind = "expiring"   // its support ends soon
	KindMissing    Kind = "missing"    // there ought to be an image
	KindUntested   Kind = "untested"   // no test ran on its system
	KindUnpromoted Kind = "unpromoted" // built, and not or not as new among what is released
	KindDeprecated Kind = "deprecated" // its support ends later
	KindSuperseded Kind = "superseded" // there is a newer tag, and users are not told to take it
)

// Kinds lists all kinds, the most urgent first.
func Kinds() []Kind {
	return []Kind{
		KindUnusable, KindFailing, KindExpired, KindExpiring, KindMissing, KindUntested, KindUnpromoted, KindDeprecated, KindSuperseded,
	}
}

// Of returns the notices of one kind.
func (r Report) Of(kind Kind) []Notice {
	var found []Notice
	for _, n := range r.Attention {
		if n.Kind == kind {
			found = append(found, n)
		}
	}
	return found
}
