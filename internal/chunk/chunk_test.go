package chunk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"uenv-ci.dev/internal/fault"
)

func random(seed byte, n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(data)
	return data
}

func build(t testing.TB, data []byte, blocks []Span) Index {
	t.Helper()
	x, err := Build(context.Background(), 4, bytes.NewReader(data), int64(len(data)), digest.FromBytes(data), blocks, 4096)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// check proves that an index describes data.
func check(t *testing.T, x Index, data []byte) {
	t.Helper()
	at := int64(0)
	for i, c := range x.Chunks {
		if c.Offset != at || c.Length <= 0 || c.end() > int64(len(data)) {
			t.Fatalf("chunk %d is %+v after %d", i, c.Span, at)
		}
		if sumOf(data[c.Offset:c.end()]) != c.Sum {
			t.Fatalf("the sum of chunk %d is wrong", i)
		}
		at = c.end()
	}
	if at != int64(len(data)) || x.Size != at || x.Digest != digest.FromBytes(data) {
		t.Fatalf("%d of %d bytes, size %d", at, len(data), x.Size)
	}
}

// assemble does what a plan says.
func assemble(t *testing.T, p Plan, target []byte, bases [][]byte) []byte {
	t.Helper()
	out := make([]byte, len(target))
	for _, c := range p.Copies {
		copy(out[c.Offset:c.end()], bases[c.Base][c.From:c.From+c.Length])
	}
	fetched := int64(0)
	for _, s := range p.Fetch {
		copy(out[s.Offset:s.end()], target[s.Offset:s.end()])
		fetched += s.Length
	}
	if fetched != p.Fetched || p.Missing > p.Fetched {
		t.Errorf("%d fetched, %d planned, %d missing", fetched, p.Fetched, p.Missing)
	}
	return out
}

func TestBuildCoversEverything(t *testing.T) {
	for _, size := range []int{0, 1, minChunk, maxFree + 1, region - 1, region, region + 1, 2*region + 12345} {
		data := random(1, size)
		check(t, build(t, data, nil), data)
	}
	data := random(2, 3*region)
	for name, blocks := range map[string][]Span{
		"good":      {{96, 1000}, {1096, 200_000}, {201_096, 5}, {900_000, maxBlock}},
		"all":       {{0, maxBlock}, {maxBlock, maxBlock}, {2 * maxBlock, 10}},
		"overlap":   {{100, 1000}, {500, 50_000}, {60_000, 50_000}},
		"backwards": {{60_000, 50_000}, {100, 20_000}},
		"outside":   {{3*region - 10, 20_000}, {1 << 40, 5}},
		"senseless": {{-5, 20_000}, {5, -20_000}, {10, 0}, {20, maxBlock + 1}, {1 << 62, 1 << 62}},
	} {
		t.Run(name, func(t *testing.T) { check(t, build(t, data, blocks), data) })
	}
}

// What is inserted or removed changes few chunks, with known blocks or without.
func TestChunksResynchronise(t *testing.T) {
	data := random(3, 6*mib)
	changed := slices.Concat(data[:2*mib], []byte("inserted"), data[2*mib:4*mib], data[4*mib+100_000:])
	p := MakePlan(build(t, changed, nil), []Index{build(t, data, nil)})
	if p.Missing > 400<<10 {
		t.Errorf("%d bytes are missing", p.Missing)
	}
	if got := assemble(t, p, changed, [][]byte{data}); !bytes.Equal(got, changed) {
		t.Error("the parts do not make the whole")
	}
}

const mib = 1 << 20

func TestPlansMakeTheWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for seed := range byte(12) {
		// A file of blocks of all sizes, of which some were exchanged, dropped or moved.
		var before, after []byte
		var blocksBefore, blocksAfter []Span
		add := func(data *[]byte, blocks *[]Span, b []byte) {
			*blocks = append(*blocks, Span{int64(len(*data)), int64(len(b))})
			*data = append(*data, b...)
		}
		for i := range 200 {
			b := random(seed^byte(i), 1+r.IntN([]int{100, 5000, 130_000}[r.IntN(3)]))
			if r.IntN(10) > 0 {
				add(&before, &blocksBefore, b)
			}
			if r.IntN(10) > 0 {
				add(&after, &blocksAfter, b)
			}
		}
		x, base := build(t, after, blocksAfter), build(t, before, blocksBefore)
		check(t, x, after)
		other := random(99, 100_000)
		p := MakePlan(x, []Index{build(t, other, nil), base})
		if got := assemble(t, p, after, [][]byte{other, before}); !bytes.Equal(got, after) {
			t.Fatalf("%d: the parts do not make the whole", seed)
		}
		if vain := p.Fetched - p.Missing; vain+p.Spare != p.Missing/vainFactor || p.Spare < 0 {
			t.Errorf("%d: %d bytes would be fetched in vain for %d", seed, vain, p.Missing)
		}
	}
}

// Ranges that are joined over what is here fetch it: then it is not copied as well,
// since who puts the file together counts its bytes.
func TestEachByteComesFromOnePlace(t *testing.T) {
	var before, after []byte
	var blocks []Span
	for i := range 600 {
		b := random(byte(i), []int{40_000 + i, 100, 50_000, 30_000}[i%4])
		blocks = append(blocks, Span{int64(len(before)), int64(len(b))})
		before = append(before, b...)
		if i%12 == 0 || i%12 == 2 || i%12 == 5 { // a short gap and a long one
			b = append([]byte{b[0] ^ byte(1+i/256)}, b[1:]...)
		}
		after = append(after, b...)
	}
	p := MakePlan(build(t, after, blocks), []Index{build(t, before, blocks)})
	if len(p.Fetch) != 100 || p.Fetched != p.Missing+50*100 {
		t.Fatalf("%d ranges of %d bytes for %d", len(p.Fetch), p.Fetched, p.Missing)
	}
	total := p.Fetched
	for _, c := range p.Copies {
		total += c.Length
	}
	if total != int64(len(after)) {
		t.Errorf("%d bytes are copied or fetched for a file of %d", total, len(after))
	}
	if got := assemble(t, p, after, [][]byte{before}); !bytes.Equal(got, after) {
		t.Error("the parts do not make the whole")
	}
}

func TestPlanWithoutBase(t *testing.T) {
	data := random(5, mib)
	p := MakePlan(build(t, data, nil), nil)
	if len(p.Copies) != 0 || len(p.Fetch) != 1 || p.Fetched != mib || p.Missing != mib {
		t.Errorf("%+v", p)
	}
	same := MakePlan(build(t, data, nil), []Index{build(t, data, nil)})
	if len(same.Copies) != 1 || len(same.Fetch) != 0 {
		t.Errorf("%+v", same)
	}
}

func TestEncodeAndDecode(t *testing.T) {
	for _, size := range []int{0, 1, 3 * mib} {
		x := build(t, random(7, size), nil)
		data := x.Encode()
		back, err := Decode(data)
		if err != nil || back.Digest != x.Digest || back.Size != x.Size || !slices.Equal(back.Chunks, x.Chunks) {
			t.Fatalf("%d bytes: %v", size, err)
		}
		for n := range min(len(data), 400) {
			if _, err := Decode(data[:n]); fault.KindOf(err) != fault.Invalid {
				t.Fatalf("%d of %d bytes: %v", n, len(data), err)
			}
		}
		if _, err := Decode(append(data, 0)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("with a byte too many: %v", err)
		}
	}
	d := digest.FromString("x").String()
	for _, text := range []string{
		"uenv chunks 1 sha256/80 " + d + " 0 0 0\n", "uenv chunks 1 sha256/80 " + d + " 0 100000000 0\n",
		"uenv chunks 2 sha256/80 " + d + " 0 4096 0\n", "uenv chunks 1 sha256/128 sha256:x 0 4096 0\n", "uenv chunks 1 sha256/80 " + d + " -1 4096 0\n",
		"uenv chunks 1 sha256/80 " + d + " 5 4096 9000000000000\n", "uenv chunks 1 sha256/80 " + d + " 5 4096 1\n\x06" + strings.Repeat("x", 10),
		"uenv chunks 1 sha256/80 " + d + " 5 4096 1\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff" + strings.Repeat("x", 10),
	} {
		if _, err := Decode([]byte(text)); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

// The index of an image in blocks of the usual size comes to less than 0.15 %.
func TestIndexIsCompact(t *testing.T) {
	data := random(8, 20*mib)
	var blocks []Span
	r := rand.New(rand.NewPCG(3, 4))
	for at := int64(96); ; {
		n := 1000 + r.Int64N(100_000)
		if at+n > int64(len(data)) {
			break
		}
		blocks = append(blocks, Span{at, n})
		at += n
	}
	var small []Span
	for at := int64(0); at+3000 < int64(len(data)); at += 3000 {
		small = append(small, Span{at, 3000})
	}
	for name, b := range map[string][]Span{"blocks": blocks, "small blocks": small, "free": nil} {
		x, err := Build(t.Context(), 4, bytes.NewReader(data), int64(len(data)), digest.FromBytes(data), b, 0)
		if err != nil {
			t.Fatal(err)
		}
		check(t, x, data)
		if n := len(x.Encode()); n > len(data)*15/10_000 {
			t.Errorf("%s: %d bytes for %d", name, n, len(data))
		}
	}
}

func TestBuildFails(t *testing.T) {
	if _, err := Build(t.Context(), 4, bytes.NewReader(make([]byte, 10)), 20, "", nil, 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a file that is too short: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, 4, bytes.NewReader(make([]byte, 10)), 10, "", nil, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(build(f, random(9, 100_000), nil).Encode())
	f.Add(fmt.Appendf(nil, header, digest.FromString("x"), 5, 4096, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := Decode(data)
		if err != nil {
			return
		}
		if again, err := Decode(x.Encode()); err != nil || len(again.Chunks) != len(x.Chunks) {
			t.Errorf("%v", err)
		}
		MakePlan(x, []Index{x})
	})
}

// TestLargeChunksAreRefused has an index that says one chunk is the whole of a large file:
// whoever compares chunks holds each in memory.
func TestLargeChunksAreRefused(t *testing.T) {
	for length, ok := range map[int64]bool{maxBlock: true, maxBlock + 1: false, 1 << 40: false} {
		x := Index{Digest: digest.FromString("x"), Size: length, Grain: leastGrain, Chunks: []Chunk{{Span: Span{0, length}}}}
		if _, err := Decode(x.Encode()); (err == nil) != ok {
			t.Errorf("%d bytes: %v", length, err)
		}
	}
}
