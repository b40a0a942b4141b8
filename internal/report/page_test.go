package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
)

func pageOf(t *testing.T, r Report) []byte {
	t.Helper()
	data, err := r.HTML(time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestPage(t *testing.T) {
	golden(t, "fleet.html", pageOf(t, Make(fleet(t), options(t))))
}

// When the registry was asked is nothing that changes in it.
func TestPageChangesOnlyWithItsContent(t *testing.T) {
	sources := fleet(t)
	first := pageOf(t, Make(sources, options(t)))
	sources[1].At, sources[1].From = sources[1].At.Add(time.Hour), "cache"
	o := options(t)
	o.Day.Time = o.Day.AddDate(0, 0, 1)
	if second := pageOf(t, Make(sources, o)); !bytes.Equal(first, second) {
		t.Error("the page depends on when it was made")
	}
	written := time.Date(2026, 11, 22, 10, 30, 0, 0, time.UTC)
	stamped, err := Make(sources, o).HTML(written)
	if err != nil || !bytes.Contains(stamped, []byte("written 2026-11-22 10:30 UTC")) {
		t.Errorf("got %v and\n%s", err, stamped)
	}
}

// element is a start tag of a page.
type element struct {
	name string
	attr map[string]string
}

// elements parses a page strictly enough to find tags that are not closed.
func elements(t *testing.T, page []byte) []element {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	var all []element
	var open []string
	for {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, page)
		}
		switch token := token.(type) {
		case xml.StartElement:
			e := element{token.Name.Local, map[string]string{}}
			for _, a := range token.Attr {
				e.attr[a.Name.Local] = a.Value
			}
			all = append(all, e)
			if e.name != "meta" {
				open = append(open, e.name)
			}
		case xml.EndElement:
			if len(open) == 0 || open[len(open)-1] != token.Name.Local {
				t.Fatalf("</%s> closes %v", token.Name.Local, open)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		t.Fatalf("not closed: %v", open)
	}
	return all
}

// checkPage finds what the page must not have: programs, references to anything else,
// links and labels that lead nowhere, cells without headings.
func checkPage(t *testing.T, page []byte) {
	t.Helper()
	known := strings.Fields("html head meta title style body header main section div h1 h2 h3 p a ul li details summary span strong table caption thead tbody tr th td")
	ids := map[string]int{}
	var wanted []string
	tables, captions := 0, 0
	for _, e := range elements(t, page) {
		if !slices.Contains(known, e.name) {
			t.Errorf("the page has a <%s>", e.name)
		}
		for name, value := range e.attr {
			switch {
			case strings.HasPrefix(name, "on"), name == "src", name == "srcset", name == "style", name == "action":
				t.Errorf("<%s %s=%q>", e.name, name, value)
			case name == "href" && !strings.HasPrefix(value, "#"):
				t.Errorf("a link to %q", value)
			case name == "href":
				wanted = append(wanted, value[1:])
			case name == "aria-labelledby":
				wanted = append(wanted, value)
			case name == "id":
				ids[value]++
			}
		}
		switch {
		case e.name == "th" && e.attr["scope"] == "":
			t.Error("a heading without scope")
		case e.name == "table":
			tables++
		case e.name == "caption":
			captions++
		}
	}
	for id, n := range ids {
		if n > 1 {
			t.Errorf("%d elements have the id %s", n, id)
		}
	}
	for _, id := range wanted {
		if ids[id] == 0 {
			t.Errorf("nothing has the id %s", id)
		}
	}
	if tables != captions {
		t.Errorf("%d tables, %d captions", tables, captions)
	}
	if bytes.Contains(page, []byte("url(")) || bytes.Contains(page, []byte("@import")) || bytes.Contains(page, []byte("http:")) || bytes.Contains(page, []byte("https:")) {
		t.Error("the page refers to something else")
	}
}

func TestPageNeedsNothingElse(t *testing.T) {
	checkPage(t, pageOf(t, Make(fleet(t), options(t))))
	checkPage(t, pageOf(t, Make([]Source{{Namespace: "deploy"}}, options(t))))
}

// Whatever texts a registry serves, the page shows them and does nothing else.
func TestPageEscapes(t *testing.T) {
	hostile := []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `</style><script>x</script>`, `javascript:alert(1)`,
		`' onmouseover='x`, `{{.}}`, `<!--`, `]]>`, "\x00\u202e", "</title>",
	}
	for _, text := range hostile {
		i := image(t, "deploy::a/1:v1@x%u", "2026-01-01", deprecated(t, ""))
		i.Label = label.Label{Namespace: "deploy", Name: text, Version: text, Tag: text, System: text, UArch: text}
		i.Problem, i.Created, i.Verdict = text, text, meta.State(text)
		i.Deprecation.Reason, i.Deprecation.Replacement = text, text
		older := i
		older.Label.Tag = "a"
		older.Digest = fleet(t)[0].Images[0].Digest
		o := options(t)
		o.Registry, o.Released = text, "deploy"
		page := pageOf(t, Make([]Source{{Namespace: "deploy", Denied: []string{text}, Images: []Image{i, older}}}, o))
		known := elements(t, pageOf(t, Make([]Source{{Namespace: "deploy", Denied: []string{"x"}, Images: fleet(t)[0].Images}}, options(t))))
		for _, e := range elements(t, page) {
			if !slices.ContainsFunc(known, func(k element) bool { return k.name == e.name }) || e.name == "script" {
				t.Errorf("%q makes a <%s>", text, e.name)
			}
			for name, value := range e.attr {
				if strings.HasPrefix(name, "on") || name == "src" || name == "href" && !strings.HasPrefix(value, "#") {
					t.Errorf("%q makes %s=%q", text, name, value)
				}
			}
		}
	}
}

// Texts can be read on every background, light and dark: WCAG's contrast of 4.5.
func TestContrast(t *testing.T) {
	palettes := regexp.MustCompile(`:root \{ ([^}]*) \}`).FindAllStringSubmatch(pageText, -1)
	if len(palettes) != 3 {
		t.Fatalf("%d palettes", len(palettes))
	}
	for _, p := range palettes {
		colours := map[string]float64{}
		for _, m := range regexp.MustCompile(`--(\w+): #([0-9a-f]{6});`).FindAllStringSubmatch(p[1], -1) {
			colours[m[1]] = luminance(t, m[2])
		}
		for _, text := range []string{"text", "dim", "good", "warn", "bad", "link"} {
			for _, ground := range []string{"page", "head"} {
				if c := contrast(colours[text], colours[ground]); c < 4.5 {
					t.Errorf("%s on %s: %.2f in %s", text, ground, c, p[1])
				}
			}
		}
	}
}

func luminance(t *testing.T, hex string) float64 {
	t.Helper()
	var sum float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(hex[2*i:2*i+2], 16, 8)
		if err != nil {
			t.Fatal(err)
		}
		c := float64(n) / 255
		if c <= 0.04045 {
			sum += weight * c / 12.92
		} else {
			sum += weight * math.Pow((c+0.055)/1.055, 2.4)
		}
	}
	return sum
}

func contrast(a, b float64) float64 { return (max(a, b) + 0.05) / (min(a, b) + 0.05) }
