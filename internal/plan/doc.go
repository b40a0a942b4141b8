// Package plan says what CI has to do: it combines the build matrix, the
// recipes and the cluster configurations into jobs, each with the content key
// of the image it makes and the reason why it is there.
package plan
