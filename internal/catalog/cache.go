package catalog

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// cache keeps answers in a directory of the user's, one file each. What is in it
// is never needed: any trouble with it counts as nothing found.
type cache string

// cacheFormat changes with the form of what is kept.
const cacheFormat = "1"

// Kinds of what is kept. Answers are forgotten when the user changes something.
const (
	kindAnswer  = "answer"
	kindIndex   = "index"
	kindListing = "listing"
)

// forgetAfter is when files that nobody reads any more are removed.
const forgetAfter = 30 * 24 * time.Hour

func (c cache) path(kind, key string) string {
	sum := sha256.Sum256([]byte(cacheFormat + "\n" + key))
	return filepath.Join(string(c), kind+"-"+hex.EncodeToString(sum[:12])+".json")
}

// readBytes returns what is kept under a key; nil if that is nothing.
func (c cache) readBytes(kind, key string) []byte {
	if c == "" {
		return nil
	}
	data, err := os.ReadFile(c.path(kind, key))
	if err != nil {
		return nil
	}
	return data
}

// written is when something was kept.
func (c cache) written(kind, key string) time.Time {
	info, err := os.Stat(c.path(kind, key))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime().UTC()
}

func (c cache) read(kind, key string, value any) bool {
	data := c.readBytes(kind, key)
	return data != nil && json.Unmarshal(data, value) == nil
}

// writeBytes keeps data. Unlike what matters, it is not synced: what a power cut
// leaves of it is no JSON or has another digest, and counts as nothing.
func (c cache) writeBytes(kind, key string, data []byte) {
	if c == "" || os.MkdirAll(string(c), 0o700) != nil {
		return
	}
	f, err := os.CreateTemp(string(c), ".tmp-*")
	if err != nil {
		return
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), c.path(kind, key))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	c.tidy()
}

func (c cache) write(kind, key string, value any) {
	if data, err := json.Marshal(value); err == nil {
		c.writeBytes(kind, key, data)
	}
}

// tidy removes what was not written again for long.
func (c cache) tidy() {
	entries, err := os.ReadDir(string(c))
	if err != nil {
		return
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > forgetAfter {
			_ = os.Remove(filepath.Join(string(c), e.Name()))
		}
	}
}

// Forget drops the answers that are kept in a directory, so that the user's own
// changes show at once.
func Forget(dir string) {
	entries, err := os.ReadDir(dir)
	if dir == "" || err != nil {
		return
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), kindAnswer+"-") {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}
