package pipeline

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/fault"
)

func TestCompareFiles(t *testing.T) {
	stores := make([]map[string]fileState, 2)
	for i := range stores {
		dir := t.TempDir()
		for name, text := range map[string]string{"same": "a", "content": string(rune('a' + i)), "mode": "m", "kind": "k"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		err := os.Symlink("to"+string(rune('a'+i)), filepath.Join(dir, "link"))
		if i == 0 {
			err = os.WriteFile(filepath.Join(dir, "first"), nil, 0o644)
		} else if err == nil {
			// Times are not in an image.
			for _, step := range []error{
				os.Chmod(filepath.Join(dir, "mode"), 0o755), os.Remove(filepath.Join(dir, "kind")), os.Mkdir(filepath.Join(dir, "kind"), 0o755),
				os.Mkdir(filepath.Join(dir, "second"), 0o755), os.Chtimes(filepath.Join(dir, "same"), time.Unix(1, 0), time.Unix(1, 0)),
			} {
				if step != nil {
					t.Fatal(step)
				}
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if stores[i], err = listFiles(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, d := range compareFiles(stores[0], stores[1]) {
		got = append(got, d.Path+": "+d.What)
	}
	want := []string{"content: content", "first: only in the first", "kind: kind", "link: link", "mode: mode", "second: only in the second"}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if same := compareFiles(stores[0], stores[0]); same == nil || len(same) > 0 {
		t.Errorf("a store differs from itself: %v", same)
	}
	err := notReproducible(12, slices.Repeat([]Difference{{Path: "p", What: "content"}}, 12))
	if !strings.Contains(err.Error(), "in 12 files") || !strings.Contains(err.Error(), "and 2 more") || fault.HintOf(err) == "" {
		t.Error(err)
	}
}
