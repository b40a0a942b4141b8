package meta

import (
	"bytes"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
)

func TestProvenanceReadsBack(t *testing.T) {
	p := NewProvenance("https://uenv-ci.dev/configure/v1", map[string]string{"uenv-ci": "1.0"})
	p.Subject = append(p.Subject, Resource{Name: "config/packages.yaml", Digest: map[string]string{"sha256": "00"}})
	p.Predicate.RunDetails.Metadata.StartedOn = At(time.Unix(1767225600, 0))
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParseProvenance(data)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := back.Encode(); err != nil || !bytes.Equal(again, data) {
		t.Errorf("got %s, %v; want %s", again, err, data)
	}
	if !bytes.Contains(data, []byte(`"_type": "https://in-toto.io/Statement/v1"`)) || !bytes.Contains(data, []byte(`"startedOn": "2026-01-01T00:00:00.000000Z"`)) {
		t.Errorf("got %s", data)
	}
}

func TestParseProvenanceRefusesOthers(t *testing.T) {
	for _, text := range []string{"", "{", "[]", "{}", `{"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://spdx.dev/Document"}`} {
		if _, err := ParseProvenance([]byte(text)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: got %v", text, err)
		}
	}
}
