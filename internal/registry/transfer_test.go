package registry

import "testing"

// What one request asks for: the end must be left to those who still come to help,
// and nothing to nobody.
func TestPieces(t *testing.T) {
	for _, test := range []struct {
		name            string
		missing, wanted int
		settled         bool
		want            int
	}{
		{"others may come", 1000, 1, false, tentativePiece},
		{"nobody comes", 1000, 1, true, 1000},
		{"a large blob for many", 10_000, 8, true, longestPiece},
		{"near the end", 100, 8, true, 6},
		{"at the end", 5, 8, true, shortestPiece},
	} {
		transfer := &transfer{missing: test.missing, wanted: test.wanted, settled: test.settled}
		if got := transfer.pieceLength(); got != test.want {
			t.Errorf("%s: %d chunks, want %d", test.name, got, test.want)
		}
	}
}
