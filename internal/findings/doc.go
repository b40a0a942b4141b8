// Package findings writes what is wrong with recipes in the forms that forges show
// beside the lines of a change: SARIF and GitLab's code quality report.
package findings
