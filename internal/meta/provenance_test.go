package meta

import (
	"bytes"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
)

func TestProvenanceReadsBack(t *testing.T) {
	p := NewProvenance("https://uenv-ci.dev/configure/v1", map[string]string{"uenv-ci": "1.0"})
	p.Made("config/packages.yaml", []byte("abc"))
	p.DependsOn(Resource{Name: "recipe", URI: "git+https://example.org/r.git"}, "0123")
	p.DependsOn(Resource{Name: "cluster"}, "")
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
	for _, want := range []string{
		`"_type": "https://in-toto.io/Statement/v1"`, `"startedOn": "2026-01-01T00:00:00.000000Z"`, `"gitCommit": "0123"`,
		`"sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"`,
	} {
		if !bytes.Contains(data, []byte(want)) {
			t.Errorf("no %s in %s", want, data)
		}
	}
}

func TestParseProvenanceRefusesOthers(t *testing.T) {
	for _, text := range []string{"", "{", "[]", "{}", `{"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://spdx.dev/Document"}`} {
		if _, err := ParseProvenance([]byte(text)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: got %v", text, err)
		}
	}
}
