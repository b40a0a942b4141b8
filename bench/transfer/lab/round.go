package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"uenv-ci.dev/internal/proc"
)

// Contender is one way of doing what is measured.
type Contender struct {
	Name    string
	Command proc.Cmd
	Out     string // a file for its standard output, if that is to be kept

	Before func() error // each time, not measured
	After  func() error // each time, not measured

	times []time.Duration
	cpu   []time.Duration
	rss   int64
}

// Rounds runs all in turn, so that what else the machine does meets each alike.
// The order changes from round to round.
func Rounds(ctx context.Context, rounds int, contenders ...*Contender) error {
	for round := range rounds {
		for i := range contenders {
			c := contenders[(i+round)%len(contenders)]
			if err := c.once(ctx); err != nil {
				return fmt.Errorf("%s: %w", c.Name, err)
			}
		}
	}
	return nil
}

func (c *Contender) once(ctx context.Context) error {
	if c.Before != nil {
		if err := c.Before(); err != nil {
			return err
		}
	}
	command := c.Command
	if c.Out != "" {
		f, err := os.Create(c.Out)
		if err != nil {
			return err
		}
		defer f.Close()
		command.Stdout = f
	}
	start := time.Now()
	p, err := command.Start(ctx)
	if err == nil {
		err = p.Wait()
	}
	took := time.Since(start)
	if err == nil && c.After != nil {
		err = c.After()
	}
	if err != nil {
		return err
	}
	c.times = append(c.times, took)
	c.cpu = append(c.cpu, p.Usage().CPU)
	c.rss = max(c.rss, p.Usage().MaxRSS)
	return nil
}

// Median returns the median of the wall times.
func (c *Contender) Median() time.Duration { return Median(c.times) }

// Report prints what was measured; ratios are to the first contender.
func Report(contenders ...*Contender) {
	first := contenders[0].Median()
	for _, c := range contenders {
		fmt.Printf("%-28s %8.1f ms  (%.1f to %.1f)  cpu %7.1f ms  memory %5.1f MB  %s takes %.2f of it\n",
			c.Name, ms(c.Median()), ms(slices.Min(c.times)), ms(slices.Max(c.times)), ms(Median(c.cpu)), float64(c.rss)/1e6,
			contenders[0].Name, first.Seconds()/c.Median().Seconds())
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Median returns the median.
func Median[T cmp.Ordered](values []T) T {
	values = slices.Clone(values)
	slices.Sort(values)
	return values[len(values)/2]
}

// Programs returns an error that names those that are not there.
func Programs(names ...string) error {
	var missing error
	for _, name := range names {
		if _, ok := proc.Look(name); !ok {
			missing = errors.Join(missing, fmt.Errorf("%s is not installed", name))
		}
	}
	return missing
}
