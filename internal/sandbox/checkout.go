package sandbox

import (
	"os"
	"path/filepath"
)

// CheckoutSecrets returns where a CI runner keeps credentials beside the checkout
// that holds dir: in its git configuration, and (GitLab) in a directory of the
// same name. It returns nil if dir is in no checkout.
func CheckoutSecrets(dir string) []string {
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		repository := filepath.Join(dir, ".git")
		if _, err := os.Lstat(repository); err == nil {
			return []string{repository, dir + ".tmp"}
		}
	}
	return nil
}
