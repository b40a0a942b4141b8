package proc

import "testing"

func TestUsage(t *testing.T) {
	p, err := Cmd{Path: "/bin/sh", Args: []string{"-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"}}.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if u := p.Usage(); u != (Usage{}) {
		t.Errorf("before the end: %+v", u)
	}
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	if u := p.Usage(); u.CPU <= 0 || u.MaxRSS < 100<<10 {
		t.Errorf("%+v", u)
	}
}
