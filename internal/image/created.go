package image

import (
	"context"
	"errors"
	"strconv"
	"time"

	"uenv-ci.dev/internal/fault"
	"uenv-ci.dev/internal/git"
	"uenv-ci.dev/internal/label"
)

// CreatedOptions say where the creation time of an image comes from.
type CreatedOptions struct {
	Explicit    string // RFC 3339, as given by the user; wins
	SourceEpoch string // SOURCE_DATE_EPOCH of our process: seconds since 1970
	Recipe      string // directory whose last commit decides else; "" for none
	Now         time.Time
}

// Created returns the creation time of an image: the explicit one, else
// SourceEpoch, else the time of the last commit that touches the recipe, else
// Now. Equal inputs so give equal images, whenever they are packed.
func Created(ctx context.Context, o CreatedOptions) (time.Time, error) {
	t, err := createdFrom(ctx, o)
	if err != nil {
		return time.Time{}, err
	}
	t = t.UTC().Truncate(time.Second)
	if !label.ClientReads(t) {
		err := fault.New(fault.Invalid, "creation time %s: clients accept only the years %d to %d", t.Format(time.RFC3339), label.FirstYear, label.LastYear)
		return time.Time{}, fault.WithHint(err, "give another time with --created or SOURCE_DATE_EPOCH")
	}
	return t, nil
}

func createdFrom(ctx context.Context, o CreatedOptions) (time.Time, error) {
	switch {
	case o.Explicit != "":
		t, err := time.Parse(time.RFC3339, o.Explicit)
		if err != nil {
			return t, fault.New(fault.Usage, "--created %q is not a time of the form 2026-01-31T12:00:00Z", o.Explicit)
		}
		return t, nil
	case o.SourceEpoch != "":
		seconds, err := strconv.ParseInt(o.SourceEpoch, 10, 64)
		if err != nil {
			return time.Time{}, fault.New(fault.Usage, "SOURCE_DATE_EPOCH %q is not a number of seconds", o.SourceEpoch)
		}
		return time.Unix(seconds, 0), nil
	case o.Recipe != "":
		t, err := git.LastChange(ctx, o.Recipe)
		if !errors.Is(err, git.ErrNotARepository) {
			return t, err
		}
	}
	return o.Now, nil
}
