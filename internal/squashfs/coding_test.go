package squashfs

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"uenv-ci.dev/internal/fault"
)

// What Coding announces is what writing an image with the same options reports.
func TestCodingIsWhatIsWritten(t *testing.T) {
	for _, o := range []WriteOptions{{}, {Codec: Gzip}, {Codec: None}, {Level: 9, BlockSize: 1 << 20}} {
		coding, err := o.Coding()
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(filepath.Join(t.TempDir(), "image"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close()
		s, err := Write(context.Background(), t.TempDir(), out, o)
		if err != nil {
			t.Fatal(err)
		}
		if s.Codec != coding.Codec.String() || s.CodecVersion != coding.Version || s.Level != coding.Level || s.BlockSize != coding.BlockSize {
			t.Errorf("%+v: announced %+v, written %+v", o, coding, s)
		}
	}
	if _, err := (WriteOptions{BlockSize: 1}).Coding(); fault.KindOf(err) != fault.Usage {
		t.Errorf("got %v", err)
	}
}
