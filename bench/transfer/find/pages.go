package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
)

var nextPage = regexp.MustCompile(`<([^>]+)>; *rel="?next"?`)

// getPages fetches a list with its further pages.
func getPages(client *http.Client, base, path string, page func([]byte) error) error {
	for path != "" {
		resp, err := client.Get(base + path)
		if err != nil {
			return err
		}
		data, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", path, resp.Status)
		}
		if err := page(data); err != nil {
			return err
		}
		path = ""
		if m := nextPage.FindStringSubmatch(resp.Header.Get("Link")); m != nil {
			path = m[1]
		}
	}
	return nil
}

// decode adds what a page lists.
func decode[T struct{ Repositories []string } | struct{ Tags []string }](data []byte, into *T) error {
	var page T
	if err := json.Unmarshal(data, &page); err != nil {
		return err
	}
	switch p := any(&page).(type) {
	case *struct{ Repositories []string }:
		list := any(into).(*struct{ Repositories []string })
		list.Repositories = append(list.Repositories, p.Repositories...)
	case *struct{ Tags []string }:
		list := any(into).(*struct{ Tags []string })
		list.Tags = append(list.Tags, p.Tags...)
	}
	return nil
}
