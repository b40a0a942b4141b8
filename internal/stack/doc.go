// Package stack turns a recipe and a cluster configuration into the Spack build
// tree: the configuration files that a Spack installation reads, the metadata
// of the image, and a description of the same that a build engine executes.
//
// Rendering is pure: values in, files out. The data files equal in meaning those
// of stackinator's releases/v5 (recipe version 1), releases/v6 (version 2) and
// main (version 3).
package stack
