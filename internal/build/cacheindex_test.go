package build

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	hashA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	hashB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	hashC = "cccccccccccccccccccccccccccccccc"
)

func described(hash, on string) string {
	return `{"spec": {"nodes": [{"name": "p", "hash": "` + hash + `", "dependencies": [{"hash": "` + on + `"}]}, {"name": "q", "hash": "` + on + `"}]}}`
}

// An index is extended by what is new, and made anew of everything where it is
// missing or damaged.
func TestUpdateIndex(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	signed := "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA512\n\n" + described(hashB, hashC) + "\n-----BEGIN PGP SIGNATURE-----\nx\n-----END PGP SIGNATURE-----\n"
	check := func(when string, want map[string]bool, ref int) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(dir, indexFile))
		if err != nil {
			t.Fatal(err)
		}
		var index cacheIndex
		if err := json.Unmarshal(text, &index); err != nil {
			t.Fatal(err)
		}
		if len(index.Database.Installs) != len(want) || index.Database.Installs[hashC].RefCount != ref {
			t.Errorf("%s: %s", when, text)
		}
		for hash, in := range want {
			if r := index.Database.Installs[hash]; r == nil || r.InCache != in {
				t.Errorf("%s: %s: %+v", when, hash, r)
			}
		}
	}
	update := func(names ...string) {
		t.Helper()
		if err := updateIndex(t.Context(), dir, names); err != nil {
			t.Fatal(err)
		}
	}
	if err := updateIndex(t.Context(), filepath.Join(dir, "none"), nil); err != nil {
		t.Errorf("nothing new: %v", err)
	}
	put("a.spec.json", described(hashA, hashC))
	update("a.spec.json")
	check("first", map[string]bool{hashA: true, hashC: false}, 1)
	put("b.spec.json.sig", signed)
	update("b.spec.json.sig", "gone.spec.json")
	check("extended", map[string]bool{hashA: true, hashB: true, hashC: false}, 2)
	for _, damage := range []string{"", "{", `{"database": {"version": "6", "installs": {}}}`, `{"database": {"version": "7", "installs": {"` + hashA + `": null}}}`} {
		put(indexFile, damage)
		put("odd.spec.json", "[")
		update("a.spec.json")
		check("after "+damage, map[string]bool{hashA: true, hashB: true, hashC: false}, 2)
	}
	if hash, err := os.ReadFile(filepath.Join(dir, indexFile+".hash")); err != nil || len(strings.TrimSpace(string(hash))) != 64 {
		t.Errorf("%s, %v", hash, err)
	}
}

// Whoever waits for another build to be done with the index can be interrupted.
func TestIndexLockCanBeInterrupted(t *testing.T) {
	dir := t.TempDir()
	held, err := lockIndex(t.Context(), filepath.Join(dir, indexLock))
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	ctx, interrupt := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- updateIndex(ctx, dir, []string{"a.spec.json"}) }()
	interrupt()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// When a build is interrupted publishing goes on for a moment, and no longer.
func TestPublishingEndsAfterTheBuild(t *testing.T) {
	build, interrupt := context.WithCancel(t.Context())
	sending, stop := lasting(build, 0)
	defer stop()
	longer, stopLonger := lasting(build, time.Hour)
	if sending.Err() != nil {
		t.Error("it has ended before")
	}
	interrupt()
	<-sending.Done()
	if longer.Err() != nil {
		t.Error("it has ended at once")
	}
	stopLonger()
	<-longer.Done()
}

func FuzzCacheIndex(f *testing.F) {
	f.Add([]byte(described(hashA, hashB)))
	f.Add([]byte("-----BEGIN PGP SIGNED MESSAGE-----\n\n{}\n-----BEGIN PGP SIGNATURE-----"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var x cacheIndex
		x.Database.Installs = map[string]*indexRecord{}
		x.add(plainText(text))
		x.count()
	})
}
