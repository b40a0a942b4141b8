package findings

import (
	"bytes"
	"cmp"
	"encoding/json"
	"net/url"
	"path/filepath"
	"slices"

	"uenv-ci.dev/internal/fault"
)

// ruleInvalid is the rule of problems that have no name of their own.
const ruleInvalid = "invalid"

// SARIF returns problems as a SARIF 2.1.0 log, as GitHub and editors read it.
// Relative file names are kept: they are relative to the root of the repository
// if the program ran there.
func SARIF(problems fault.Problems, version string) ([]byte, error) {
	run := sarifRun{ColumnKind: "unicodeCodePoints", Results: []sarifResult{}}
	run.Tool.Driver = sarifDriver{Name: "uenv-ci", Version: version, InformationURI: "https://uenv-ci.dev", Rules: []sarifRule{}}
	for _, p := range problems {
		rule := cmp.Or(p.Rule, ruleInvalid)
		if !slices.Contains(run.Tool.Driver.Rules, sarifRule{rule}) {
			run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, sarifRule{rule})
		}
		location := sarifLocation{}
		location.PhysicalLocation.ArtifactLocation.URI = fileURI(p.File)
		if p.Line > 0 {
			location.PhysicalLocation.Region = &sarifRegion{p.Line, p.Column}
		}
		run.Results = append(run.Results, sarifResult{
			RuleID: rule, Level: p.Severity.String(), Message: sarifText{sentence(p)}, Locations: []sarifLocation{location},
		})
	}
	return encode(sarifLog{
		Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run},
	})
}

type sarifLog struct {
	Schema  string     `json:"$schema"`
	Version string     `json:"version"`
	Runs    []sarifRun `json:"runs"`
}

type sarifRun struct {
	Tool struct {
		Driver sarifDriver `json:"driver"`
	} `json:"tool"`
	ColumnKind string        `json:"columnKind"`
	Results    []sarifResult `json:"results"`
}

type sarifDriver struct {
	Name           string      `json:"name"`
	Version        string      `json:"version"`
	InformationURI string      `json:"informationUri"`
	Rules          []sarifRule `json:"rules"`
}

type sarifRule struct {
	ID string `json:"id"`
}

type sarifText struct {
	Text string `json:"text"`
}

type sarifResult struct {
	RuleID    string          `json:"ruleId"`
	Level     string          `json:"level"`
	Message   sarifText       `json:"message"`
	Locations []sarifLocation `json:"locations"`
}

type sarifLocation struct {
	PhysicalLocation struct {
		ArtifactLocation struct {
			URI string `json:"uri"`
		} `json:"artifactLocation"`
		Region *sarifRegion `json:"region,omitempty"`
	} `json:"physicalLocation"`
}

type sarifRegion struct {
	StartLine   int `json:"startLine"`
	StartColumn int `json:"startColumn,omitempty"`
}

// fileURI is a file's name as a URI reference.
func fileURI(name string) string {
	name = filepath.ToSlash(filepath.Clean(name))
	if filepath.IsAbs(name) {
		return (&url.URL{Scheme: "file", Path: name}).String()
	}
	return (&url.URL{Path: name}).String()
}

// sentence is the message with its hint.
func sentence(p fault.Problem) string {
	if p.Hint == "" {
		return p.Message
	}
	return p.Message + " (" + p.Hint + ")"
}

func encode(v any) ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(v)
	return out.Bytes(), fault.Wrap(fault.Failure, err, "write the report")
}
