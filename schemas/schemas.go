// Package schemas holds the JSON schemas (draft-07) of every document the program
// reads or writes, for use at run time and by editors.
package schemas

import "embed"

// FS has the schemas by file name, such as recipe-v2-config.json.
//
//go:embed *.json
var FS embed.FS
