package event

import "testing"

func TestFormatBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 999_499: "999 kB", 999_500: "1.00 MB",
		9_996_000: "10.0 MB", 313_000_000: "313 MB", 3_900_000_000: "3.90 GB", 123_456_000_000_000: "123 TB",
	} {
		if got := FormatBytes(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}
