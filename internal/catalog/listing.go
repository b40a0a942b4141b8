package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/label"
)

// The uenv client (9.x) rejects a whole listing for one date without a fraction of a
// second, and reads it within five seconds.
const (
	listingTime   = "2006-01-02T15:04:05.000Z"
	listingWait   = 10 * time.Second
	maxListing    = 64 << 20
	listingParts  = 6
	listingDigest = `^[0-9a-f]{64}$`
)

// listing is the document by which the uenv client finds images.
type listing struct {
	Results []listed `json:"results"`
}

type listed struct {
	Path    string `json:"path"` // NAMESPACE/SYSTEM/UARCH/NAME/VERSION/TAG
	SHA256  string `json:"sha256"`
	Created string `json:"created"`
	Size    int64  `json:"size"` // of the image, in bytes
}

// EncodeListing writes the listing document that the uenv client reads in place
// of its site's listing service. What would make the client reject the whole is
// left out, with a warning.
func EncodeListing(records []Record, events event.Sink) ([]byte, error) {
	doc := listing{Results: []listed{}}
	for _, r := range records {
		l := r.Label
		created := r.time().UTC()
		switch {
		case !label.ClientReads(created):
			events.Warn("listing", "%s is left out: clients reject its date %q", l, r.Created)
			continue
		case r.Problem != "" && r.Problem != noMeta:
			events.Warn("listing", "%s is left out: %s", l, r.Problem)
			continue
		case len(l.Missing()) > 0 || l.Namespace == "":
			events.Warn("listing", "%s is left out: its label is not complete", l)
			continue
		}
		doc.Results = append(doc.Results, listed{l.Repository() + "/" + l.Tag, r.Digest.Encoded(), created.Format(listingTime), r.Size})
	}
	data, err := json.Marshal(doc)
	return append(data, '\n'), err
}

var sha256Pattern = regexp.MustCompile(listingDigest)

// ParseListing reads a listing document. Rows that no label fits are passed over,
// as the uenv client does.
func ParseListing(data []byte) ([]Record, error) {
	var doc listing
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fault.New(fault.Invalid, "not a listing of images: %w", err)
	}
	records := []Record{}
	for _, row := range doc.Results {
		i := strings.LastIndexByte(row.Path, '/')
		if i < 0 || strings.Count(row.Path, "/") != listingParts-1 || !sha256Pattern.MatchString(row.SHA256) || row.Size < 0 {
			continue
		}
		l, err := label.FromRepository(row.Path[:i], row.Path[i+1:])
		if err != nil {
			continue
		}
		d := digest.NewDigestFromEncoded(digest.SHA256, row.SHA256)
		r := Record{Label: l, Digest: d, ID: label.ID(d), Size: row.Size}
		if t, ok := listingDate(row.Created); ok {
			r.Created = t.UTC().Format(time.RFC3339)
		}
		records = append(records, r)
	}
	return records, nil
}

// listingDate reads the dates that are found in listings: a blank or T before
// the time, a fraction or none, UTC.
func listingDate(s string) (time.Time, bool) {
	s = strings.Replace(strings.TrimSuffix(s, "Z"), " ", "T", 1)
	s, _, _ = strings.Cut(s, ".")
	t, err := time.Parse("2006-01-02T15:04:05", s)
	return t, err == nil
}

// readListing reads the listing of a namespace from an URL, to which the query
// that the uenv client sends is added, or a file. One that was cached is asked for
// again only if it has changed.
func readListing(ctx context.Context, from, namespace string, c cache) ([]Record, error) {
	data, err := listingBytes(ctx, from, namespace, c)
	if err != nil {
		return nil, fmt.Errorf("read the listing of %s: %w", namespace, err)
	}
	records, err := ParseListing(data)
	if err != nil {
		return nil, fmt.Errorf("read the listing of %s: %w", namespace, err)
	}
	return slices.DeleteFunc(records, func(r Record) bool { return r.Label.Namespace != namespace }), nil
}

func listingBytes(ctx context.Context, from, namespace string, c cache) ([]byte, error) {
	if !strings.HasPrefix(from, "http://") && !strings.HasPrefix(from, "https://") {
		data, err := bounded.ReadFile(strings.TrimPrefix(from, "file://"), maxListing)
		if errors.Is(err, os.ErrNotExist) {
			return nil, fault.New(fault.NotFound, "%w", err)
		}
		return data, err
	}
	u, err := url.Parse(from)
	if err != nil {
		return nil, fault.New(fault.Usage, "its address is not a URL") // the error may quote a password
	}
	q := u.Query()
	q.Set("namespace", namespace)
	u.RawQuery = q.Encode()
	return getListing(ctx, u.String(), c)
}

// getListing fetches a listing with a conditional request.
func getListing(ctx context.Context, address string, c cache) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, listingWait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	var before cachedListing
	known := c.read(kindListing, address, &before)
	if known && before.ETag != "" {
		req.Header.Set("If-None-Match", before.ETag)
	} else if known && before.Modified != "" {
		req.Header.Set("If-Modified-Since", before.Modified)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fault.New(fault.Network, "%s: %w", req.URL.Host, withoutAddress(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified && known {
		return before.Data, nil
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fault.New(fault.Network, "%s answered %s", req.URL.Host, resp.Status)
	}
	data, err := bounded.ReadAll(resp.Body, maxListing)
	if err != nil {
		return nil, fault.Wrap(fault.Network, err, "read the answer of %s", req.URL.Host)
	}
	now := cachedListing{resp.Header.Get("ETag"), resp.Header.Get("Last-Modified"), data}
	if now.ETag != "" || now.Modified != "" {
		c.write(kindListing, address, now)
	}
	return data, nil
}

// withoutAddress leaves out the URL that an error names: it may have credentials in it.
func withoutAddress(err error) error {
	var link *url.Error
	if errors.As(err, &link) {
		return link.Err
	}
	return err
}

// cachedListing is a listing with what tells whether it has changed.
type cachedListing struct {
	ETag     string `json:"etag,omitempty"`
	Modified string `json:"modified,omitempty"`
	Data     []byte `json:"data"`
}
