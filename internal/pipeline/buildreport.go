package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"uenv-ci.dev/internal/atomicfile"
	"uenv-ci.dev/internal/bounded"
	"uenv-ci.dev/internal/build"
	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/image"
	"uenv-ci.dev/internal/label"
	"uenv-ci.dev/internal/meta"
	"uenv-ci.dev/internal/squashfs"
)

// BuildReportFile is the usual name of a build report.
const BuildReportFile = "build-report.json"

// BuildReportVersion is that of the build report's format. It changes when a
// member changes its meaning.
const BuildReportVersion = 1

// BuildReport says what an image was made from, how that went and what became of
// it: the file build-report.json (schemas/build-report.json).
type BuildReport struct {
	Version int         `json:"version"`
	Label   label.Label `json:"label"`
	Inputs  Inputs      `json:"inputs,omitzero"`
	// Builder has versions of this program by name, Host describes the machine, and
	// Invocation names the run, such as the URL of the CI job.
	Builder    map[string]string `json:"builder,omitempty"`
	Host       map[string]string `json:"host,omitempty"`
	Invocation string            `json:"invocation,omitempty"`
	ContentKey
	// Existing says where the image was found by its key, as REPOSITORY@DIGEST;
	// "" if it was built.
	Existing string       `json:"existing,omitempty"`
	Report   build.Report `json:"report,omitzero"` // absent if it did not come to building
	Image    image.File   `json:"image,omitzero"`
	// Reproducible is there if it was found out.
	Reproducible *Reproducibility    `json:"reproducible,omitempty"`
	Pushed       *ocispec.Descriptor `json:"pushed,omitempty"` // of the manifest
	Attached     []Attached          `json:"attached,omitempty"`
	KeyTag       string              `json:"key_tag,omitempty"` // where the image will be found by its key
	Error        string              `json:"error,omitempty"`   // why the image was not made or not published
	Started      meta.Time           `json:"started"`
	Finished     meta.Time           `json:"finished"`
	Seconds      float64             `json:"seconds"` // that all of it took
}

// Attached is a document that was attached to the image.
type Attached struct {
	Type   string        `json:"type"`
	Digest digest.Digest `json:"digest"` // of its manifest
}

// Inputs are what a build was told, as far as the same build needs it again. No
// value of a variable is among them: any may be secret.
type Inputs struct {
	Recipe      Origin          `json:"recipe"`
	Cluster     *Origin         `json:"cluster,omitempty"`
	Mirrors     string          `json:"mirrors,omitempty"` // file
	System      string          `json:"system"`
	UArch       string          `json:"uarch"`
	Mount       string          `json:"mount"`
	Develop     bool            `json:"develop,omitempty"`
	Sandbox     bool            `json:"sandbox"`
	Engine      string          `json:"engine,omitempty"`      // "" is the direct one
	Stackinator string          `json:"stackinator,omitempty"` // program or directory of the engine of that name
	HookNetwork bool            `json:"hook_network,omitempty"`
	Offline     bool            `json:"offline,omitempty"`
	AirGapped   bool            `json:"air_gapped,omitempty"`
	Protected   bool            `json:"protected,omitempty"`
	Restricted  bool            `json:"restricted,omitempty"`
	Jobs        int             `json:"jobs,omitempty"` // 0: one per processor
	Env         []string        `json:"env,omitempty"`  // variables named by --env
	Variables   []string        `json:"variables"`      // names of all variables of the caller that the build saw
	Created     string          `json:"created"`        // RFC 3339
	Packing     InputsOfPacking `json:"packing"`
}

// InputsOfPacking say how an image is packed.
type InputsOfPacking struct {
	Codec     string `json:"codec"`
	Level     int    `json:"level,omitempty"`      // 0: the codec's default
	BlockSize int    `json:"block_size,omitempty"` // 0: the default

	Mksquashfs bool `json:"mksquashfs,omitempty"` // the program of that name packed
}

// Origin says which files a directory held.
type Origin struct {
	Dir    string `json:"dir"`
	Remote string `json:"remote,omitempty"` // git repository
	Commit string `json:"commit,omitempty"` // "" outside of a git repository
	Path   string `json:"path,omitempty"`   // in the repository
	Dirty  bool   `json:"dirty,omitempty"`  // with changes that are in no commit
	Files  string `json:"files"`            // digest of those that decide about the image
}

// originOf describes a directory whose files have a digest.
func originOf(ctx context.Context, dir, files string) (Origin, error) {
	o := Origin{Dir: dir, Files: files}
	c, err := git.Describe(ctx, dir)
	if errors.Is(err, git.ErrNotARepository) {
		return o, nil
	}
	o.Remote, o.Commit, o.Path, o.Dirty = c.Remote, c.Commit, c.Path, c.Dirty
	return o, err
}

// inputs describes what this build was told.
func (b *imageBuild) inputs(ctx context.Context) (Inputs, error) {
	o := b.Build
	in := Inputs{
		Mirrors: o.Mirrors, System: o.System, UArch: o.UArch, Mount: b.in.Mount, Develop: o.Develop, Sandbox: !o.NoSandbox,
		HookNetwork: o.Network, Offline: o.Offline, AirGapped: o.AirGapped, Protected: o.Protected, Restricted: o.Restricted, Jobs: o.Jobs,
		Env: o.Env, Variables: append([]string{}, slices.Sorted(maps.Keys(b.Key.Variables))...), Created: b.Pack.Created.UTC().Format(time.RFC3339),
	}
	if o.Engine == build.EngineStackinator {
		in.Engine, in.Stackinator = o.Engine, o.Stackinator
	}
	coding, err := squashfs.WriteOptions{Codec: b.Pack.Codec, Level: b.Pack.Level, BlockSize: b.Pack.BlockSize}.Coding()
	if err != nil {
		return in, err
	}
	in.Packing = InputsOfPacking{coding.Codec.String(), coding.Level, coding.BlockSize, b.Pack.Mksquashfs}
	if in.Recipe, err = originOf(ctx, b.in.Recipe.Dir, b.done.recipe); err != nil || b.in.Cluster == nil {
		return in, err
	}
	cluster, err := originOf(ctx, b.in.Cluster.Dir, b.done.cluster)
	in.Cluster = &cluster
	return in, err
}

// Write writes the report to a file.
func (r BuildReport) Write(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("write the build report: %w", err)
	}
	err := atomicfile.Write(file, 0o644, func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(r)
	})
	if err != nil {
		return fmt.Errorf("write the build report: %w", err)
	}
	return nil
}

// maxBuildReport bounds the size of a report that is read.
const maxBuildReport = 64 << 20

// ReadBuildReport reads a build report. One that is none has kind Invalid.
func ReadBuildReport(file string) (BuildReport, error) {
	f, err := os.Open(file) // a pipe will do
	if errors.Is(err, os.ErrNotExist) {
		return BuildReport{}, fault.New(fault.NotFound, "there is no build report %s", file)
	}
	if err != nil {
		return BuildReport{}, fmt.Errorf("read the build report: %w", err)
	}
	defer f.Close()
	data, err := bounded.ReadAll(f, maxBuildReport)
	if err != nil {
		return BuildReport{}, fmt.Errorf("read the build report %s: %w", file, err)
	}
	return parseBuildReport(file, data)
}

func parseBuildReport(file string, data []byte) (BuildReport, error) {
	var about struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &about); err != nil {
		return BuildReport{}, fault.New(fault.Invalid, "%s is not a build report: %w", file, err)
	}
	if about.Version != BuildReportVersion {
		err := fault.New(fault.Invalid, "%s is not a build report of version %d", file, BuildReportVersion)
		if about.Version > BuildReportVersion {
			err = fault.WithHint(err, "it is of version %d: use a newer uenv-ci", about.Version)
		}
		return BuildReport{}, err
	}
	var r BuildReport
	if err := json.Unmarshal(data, &r); err != nil {
		return BuildReport{}, fault.New(fault.Invalid, "%s is not a build report: %w", file, err)
	}
	return r, nil
}
