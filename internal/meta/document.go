package meta

import (
	"encoding/json"
	"strings"
	"unicode/utf8"

	"uenv-ci.dev/internal/fault"
)

// Limits of documents in bytes.
const (
	maxVerdict = 32 << 20
	maxRecord  = 1 << 20
)

// decode reads a versioned JSON document into v. Members that it does not know
// are ignored, so that a version may grow.
func decode(data []byte, limit int, what string, version int, v any) error {
	if len(data) > limit {
		return invalid("%s: larger than %d bytes", what, limit)
	}
	if !utf8.Valid(data) {
		return invalid("%s: not UTF-8 text", what)
	}
	var head struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return invalid("%s: %w", what, err)
	}
	switch {
	case head.Version == nil:
		return invalid("%s: version: missing", what)
	case *head.Version > version:
		return fault.WithHint(invalid("%s: version %d is newer than the %d that we know", what, *head.Version, version),
			"use a newer uenv-ci")
	case *head.Version < 1:
		return invalid("%s: version: %d does not exist", what, *head.Version)
	}
	if err := json.Unmarshal(data, v); err != nil {
		return invalid("%s: %w", what, err)
	}
	return nil
}

func blank(s string) bool { return strings.TrimSpace(s) == "" }
