package label

import "testing"

func TestCompareVersions(t *testing.T) {
	ascending := []string{"1.0-rc1", "1.0-rc2", "1.0", "1.0.1", "1.2", "1.10", "23.11", "24.9", "24.11", "24.011.1", "2025.1"}
	for i, a := range ascending {
		for j, b := range ascending {
			if got := CompareVersions(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%s, %s: got %d", a, b, got)
			}
		}
	}
	if CompareVersions("v2", "v10") >= 0 || CompareVersions("v1", "latest") == 0 {
		t.Error("tags are not ordered")
	}
}
