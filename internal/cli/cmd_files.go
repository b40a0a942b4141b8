package cli

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"uenv-ci.dev/internal/event"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/squashfs"
)

func packFlags() []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "packer", Usage: "pack with the `native|mksquashfs` packer: our own, or the program of squashfs-tools", Value: packerNative},
		&cli.StringFlag{Name: "created", Usage: "creation `TIME` (RFC 3339) of the image; else SOURCE_DATE_EPOCH, the recipe's last commit, or now"},
	}, codecFlags()...)
}

// codecFlags say how images are compressed.
func codecFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "codec", Usage: "compress with `zstd|gzip|none`", Value: "zstd"},
		&cli.IntFlag{Name: "level", Usage: "compression `LEVEL` (0: the codec's default)"},
		&cli.IntFlag{Name: "block-size", Usage: "block size in `BYTES`, a power of two from 4096 to 1048576", Value: 128 << 10},
	}
}

func (in *invocation) packOptions(ctx context.Context, recipe string) (image.PackOptions, error) {
	codec, err := in.codec()
	if err != nil {
		return image.PackOptions{}, err
	}
	created, err := image.Created(ctx, image.CreatedOptions{
		Explicit: in.String("created"), SourceEpoch: in.getenv("SOURCE_DATE_EPOCH"), Recipe: recipe, Now: time.Now(),
	})
	if err != nil {
		return image.PackOptions{}, err
	}
	packer := cmp.Or(in.String("packer"), packerNative) // not every command has the flag
	if packer != packerNative && packer != packerMksquashfs {
		return image.PackOptions{}, fault.New(fault.Usage, "--packer %q is neither %s nor %s", packer, packerNative, packerMksquashfs)
	}
	return image.PackOptions{
		Created: created, Codec: codec, Level: in.Int("level"), BlockSize: in.Int("block-size"),
		Mksquashfs: packer == packerMksquashfs, Events: in.events,
	}, nil
}

// The packers that --packer takes.
const (
	packerNative     = "native"
	packerMksquashfs = "mksquashfs"
)

func (in *invocation) codec() (squashfs.Codec, error) {
	codec, err := squashfs.ParseCodec(in.String("codec"))
	if err != nil {
		return codec, fault.New(fault.Usage, "%w", err)
	}
	return codec, nil
}

func packCommand() *command {
	return &command{
		name: "pack", siteless: true, group: "Image files", usage: "pack a directory into a squashfs image",
		args: "DIR --out FILE", minArgs: 1, maxArgs: 1,
		details: `The same files, options and --created give the same bytes on every machine. The image
is read back before it gets its final name.

With --base, blocks that have not changed since an earlier image are copied from it
instead of being compressed again. What has changed is decided by content, and the
resulting image is the same. This is fastest if the earlier image was packed with
--blocks or --base and its block table FILE.blocks is beside it, owned by you and
readable by nobody else; otherwise its blocks have to be decompressed.`,
		examples: `uenv-ci pack ./store --out store.squashfs --created 2026-01-31T12:00:00Z
# what mksquashfs does with -root-owned -all-time 0, without object files
uenv-ci pack ./tree --out tree.squashfs --force-owner 0 --mtime 1970-01-01T00:00:00Z --exclude '*.o'`,
		flags: append([]cli.Flag{
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "write the image to `FILE`"},
			&cli.StringFlag{Name: "force-owner", Usage: "give all files the owner `UID[:GID]`; 'keep' keeps their owners", Value: "65534:65534"},
			&cli.StringFlag{Name: "mtime", Usage: "give all files the modification `TIME` (RFC 3339); else that of --created"},
			&cli.StringSliceFlag{Name: "exclude", Usage: "leave out paths that match `PATTERN`"},
			&cli.StringFlag{Name: "base", Usage: "copy what has not changed from the earlier image `FILE`; implies --blocks"},
			&cli.BoolFlag{Name: "blocks", Usage: "also write OUT.blocks, so that the image can be a --base"},
		}, packFlags()...),
		run: runPack,
	}
}

type packResult image.File

func runPack(ctx context.Context, in *invocation) (result, error) {
	if in.String("out") == "" {
		return nil, usageError([]string{"pack"}, "--out is missing")
	}
	if info, err := os.Stat(in.arg(0)); err != nil || !info.IsDir() {
		return nil, fault.New(fault.NotFound, "pack: %s is not a directory", in.arg(0))
	}
	o, err := in.packOptions(ctx, "")
	if err != nil {
		return nil, err
	}
	if err := in.inodeOptions(&o); err != nil {
		return nil, err
	}
	o.Exclude = commaList(in.StringSlice("exclude"))
	o.Base, o.KeepBlocks = in.String("base"), in.Bool("blocks") || in.String("base") != ""
	if _, err := os.Stat(o.Base); o.Base != "" && err != nil {
		return nil, fault.Wrap(fault.NotFound, err, "pack: base")
	}
	file, err := image.Pack(ctx, in.arg(0), in.String("out"), o)
	if err != nil {
		return nil, err
	}
	return packResult(file), nil
}

// inodeOptions sets what all files of an image have in common.
func (in *invocation) inodeOptions(o *image.PackOptions) (err error) {
	if mtime := in.String("mtime"); mtime != "" {
		if o.ModTime, err = time.Parse(time.RFC3339, mtime); err != nil {
			return fault.New(fault.Usage, "--mtime %q is not a time of the form 2026-01-31T12:00:00Z", mtime)
		}
	}
	owner := in.String("force-owner")
	if o.KeepOwners = owner == "keep"; o.KeepOwners {
		return nil
	}
	user, group, both := strings.Cut(owner, ":")
	if !both {
		group = user
	}
	uid, err1 := strconv.ParseUint(user, 10, 32)
	gid, err2 := strconv.ParseUint(group, 10, 32)
	if err1 != nil || err2 != nil {
		return fault.New(fault.Usage, "--force-owner %q is neither UID[:GID], by number, nor 'keep'", owner)
	}
	o.Owner = &squashfs.Owner{UID: uint32(uid), GID: uint32(gid)}
	return nil
}

func (r packResult) text(p *printer) {
	p.printf("%s  %s  %s", r.Path, r.Digest, event.FormatBytes(r.Size))
}

func unpackCommand() *command {
	return &command{
		name: "unpack", siteless: true, group: "Image files", usage: "unpack an image into a directory",
		args: "FILE --out DIR", minArgs: 1, maxArgs: 1,
		details: `Nothing is written outside DIR. Owners, setuid bits and devices are dropped unless
--preserve is given.`,
		examples: `uenv-ci unpack store.squashfs --out ./store`,
		flags: []cli.Flag{
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "unpack into `DIR`, which must be empty or not exist"},
			&cli.BoolFlag{Name: "preserve", Usage: "keep owners, setuid bits, devices and security attributes (needs root)"},
		},
		run: runUnpack,
	}
}

type fileResult struct {
	Path string `json:"path"`
	OK   bool   `json:"ok"`
	verb string
}

func (r fileResult) text(p *printer) { p.printf("%s: %s", r.Path, r.verb) }

func runUnpack(ctx context.Context, in *invocation) (result, error) {
	if in.String("out") == "" {
		return nil, usageError([]string{"unpack"}, "--out is missing")
	}
	img, err := in.openImage()
	if err != nil {
		return nil, err
	}
	defer img.Close()
	err = squashfs.Unpack(ctx, img, in.String("out"), squashfs.UnpackOptions{Preserve: in.Bool("preserve"), Events: in.events})
	if err != nil {
		return nil, err
	}
	return fileResult{in.String("out"), true, "unpacked"}, nil
}

func verifyCommand() *command {
	return &command{
		name: "verify", siteless: true, group: "Image files", usage: "check the whole structure of an image",
		args: "FILE", minArgs: 1, maxArgs: 1,
		details: `Changes that leave the structure valid, such as a different letter in a name or in
uncompressed text, show only in the file's digest, which 'repo verify' checks for
pulled images.`,
		examples: `uenv-ci verify store.squashfs`,
		run:      runVerify,
	}
}

func runVerify(ctx context.Context, in *invocation) (result, error) {
	img, err := in.openImage()
	if err != nil {
		return nil, err
	}
	defer img.Close()
	if err := squashfs.Verify(ctx, img, in.events); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "verify %s", in.arg(0))
	}
	return fileResult{in.arg(0), true, "good"}, nil
}

func (in *invocation) openImage() (*squashfs.Image, error) {
	img, err := squashfs.Open(in.arg(0))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "no file %s", in.arg(0))
	}
	return img, fault.Wrap(fault.Invalid, err, "read image")
}
