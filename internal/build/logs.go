package build

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"uenv-ci.dev/internal/atomicfile"
)

// LogArchive is the name of the file with the logs of a build that failed.
const LogArchive = "build-logs.tar.gz"

// keep writes what tells of the build and outlives it.
func (j *job) keep(w *workspace, failed error) error {
	logs := filepath.Join(w.Dir, "logs")
	if j.LogDir != "" {
		if err := copyLogs(logs, j.LogDir); err != nil {
			return fmt.Errorf("keep the logs: %w", err)
		}
	}
	if f := j.report.Failure; f != nil {
		f.Message, f.Hint = j.redact.Text(f.Message), j.redact.Text(f.Hint)
	} else if failed != nil {
		j.report.Error = j.redact.Text(failed.Error())
	}
	if j.Report != nil {
		*j.Report = j.report
	}
	if _, err := os.Stat(logs); err != nil || j.ArchiveDir == "" || failed == nil || j.Restricted {
		return nil // or it did not come to running anything
	}
	if err := os.MkdirAll(j.ArchiveDir, 0o755); err != nil {
		return fmt.Errorf("keep the logs: %w", err)
	}
	file := filepath.Join(j.ArchiveDir, LogArchive)
	if err := archive(logs, file); err != nil {
		return err
	}
	j.Events.Info("logs", "all logs are in %s", file)
	return nil
}

func copyLogs(logs, to string) error {
	entries, err := os.ReadDir(logs)
	if err != nil {
		return nil // there is no log yet
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for _, e := range entries {
		if err := copyLog(filepath.Join(logs, e.Name()), filepath.Join(to, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// copyLog copies a log of any size.
func copyLog(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// archive packs the files of a directory into a tar.gz.
func archive(dir, file string) error {
	out, err := atomicfile.Create(file, 0o644)
	if err != nil {
		return fmt.Errorf("keep the logs: %w", err)
	}
	defer out.Abort()
	zip := gzip.NewWriter(out)
	t := tar.NewWriter(zip)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("keep the logs: %w", err)
	}
	for _, e := range entries {
		if err := addFile(t, dir, e.Name()); err != nil {
			return fmt.Errorf("keep the logs: %w", err)
		}
	}
	if err := errors.Join(t.Close(), zip.Close()); err != nil {
		return fmt.Errorf("keep the logs: %w", err)
	}
	return out.Commit()
}

func addFile(t *tar.Writer, dir, name string) error {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header := &tar.Header{Name: "build-logs/" + name, Mode: 0o644, Size: info.Size(), ModTime: info.ModTime()}
	if err := t.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.CopyN(t, f, info.Size())
	return err
}
