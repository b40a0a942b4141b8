package chunk

import "slices"

// Copy is a part of a file that another file has.
type Copy struct {
	Span       // in the new file
	Base int   // which of the others
	From int64 // offset in it
}

// Plan says how a file is put together.
type Plan struct {
	Copies []Copy // in order
	Fetch  []Span // what remains, in order; no byte is in both
	// Missing is how many bytes no other file has. Fetched is how many Fetch comes
	// to: a little more, where ranges are so near that one costs less than two.
	Missing, Fetched int64
	// Spare is how many bytes more may be fetched in vain to save requests.
	Spare int64
}

// Limits on joining what must be fetched: a range of its own costs as much as a
// short gap, and no more than a part of what is missing is fetched in vain.
const (
	shortGap   = 256
	vainFactor = 40 // one part in so many
)

// MakePlan finds the chunks of x in other files, each described by an index.
func MakePlan(x Index, bases []Index) Plan {
	type place struct {
		base int
		from int64
	}
	known := map[Sum]place{}
	for i, b := range bases {
		for _, c := range b.Chunks {
			if _, ok := known[c.Sum]; !ok {
				known[c.Sum] = place{i, c.Offset}
			}
		}
	}
	var p Plan
	for _, c := range x.Chunks {
		at, ok := known[c.Sum]
		if !ok {
			p.Missing += c.Length
			p.Fetch = appendSpan(p.Fetch, c.Span)
			continue
		}
		if last := len(p.Copies) - 1; last >= 0 {
			l := &p.Copies[last]
			if l.Base == at.base && l.end() == c.Offset && l.From+l.Length == at.from {
				l.Length += c.Length
				continue
			}
		}
		p.Copies = append(p.Copies, Copy{c.Span, at.base, at.from})
	}
	p.Fetch, p.Spare = join(p.Fetch, p.Missing/vainFactor)
	for _, s := range p.Fetch {
		p.Fetched += s.Length
	}
	p.Copies = without(p.Copies, p.Fetch)
	return p
}

// without drops the copies that ranges were joined over: each byte of the file
// comes from one place. A copy is inside of a range or outside.
func without(copies []Copy, fetch []Span) []Copy {
	return slices.DeleteFunc(copies, func(c Copy) bool {
		for len(fetch) > 0 && fetch[0].end() <= c.Offset {
			fetch = fetch[1:]
		}
		return len(fetch) > 0 && fetch[0].Offset <= c.Offset
	})
}

func appendSpan(spans []Span, s Span) []Span {
	if last := len(spans) - 1; last >= 0 && spans[last].end() == s.Offset {
		spans[last].Length += s.Length
		return spans
	}
	return append(spans, s)
}

// join fills short gaps between ranges, and returns what is left of the bytes that
// may be fetched in vain.
func join(spans []Span, vain int64) (joined []Span, spare int64) {
	for _, s := range spans {
		if last := len(joined) - 1; last >= 0 {
			gap := s.Offset - joined[last].end()
			if gap <= min(shortGap, vain) {
				joined[last].Length += gap + s.Length
				vain -= gap
				continue
			}
		}
		joined = append(joined, s)
	}
	return joined, vain
}
