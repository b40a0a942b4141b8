package cli

import (
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"uenv-ci.dev/internal/fault"
)

// days reads a flag such as 90d, or any duration that Go knows; 0 if it is unset.
func (in *invocation) days(flag string) (time.Duration, error) {
	text := in.String(flag)
	if text == "" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 36500 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if d, err := time.ParseDuration(text); err == nil && d > 0 {
		return d, nil
	}
	return 0, fault.New(fault.Usage, "--%s %q is not a time such as 90d or 12h", flag, text)
}

// since reads a day, or how long ago; zero if the flag is unset.
func (in *invocation) since(flag string) (time.Time, error) {
	text := in.String(flag)
	if t, err := time.Parse(time.DateOnly, text); text == "" || err == nil {
		return t, nil
	}
	ago, err := in.days(flag)
	if err != nil {
		return time.Time{}, fault.New(fault.Usage, "--%s %q is neither a day such as 2026-01-31 nor a time such as 30d", flag, text)
	}
	return time.Now().Add(-ago), nil
}

// parseRate reads a number of bytes with an optional k, M or G (powers of 1000).
func parseRate(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	factor := map[byte]int64{'k': 1e3, 'M': 1e6, 'G': 1e9}[text[len(text)-1]]
	number := text
	if factor == 0 {
		factor = 1
	} else {
		number = text[:len(text)-1]
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64/factor {
		return 0, fault.New(fault.Usage, "--bwlimit %q is not a number of bytes such as 800k, 50M or 1G", text)
	}
	return n * factor, nil
}

func commaList(values []string) []string {
	var list []string
	for _, v := range values {
		for part := range strings.SplitSeq(v, ",") {
			if part != "" {
				list = append(list, part)
			}
		}
	}
	return list
}

// nonEmpty returns those of the values that are set.
func nonEmpty(values ...string) []string {
	return slices.DeleteFunc(values, func(v string) bool { return v == "" })
}

// isPath tells a file from a label as the uenv client does, and also takes what
// is a file in the working directory.
func isPath(arg string) bool {
	if strings.HasPrefix(arg, "/") || strings.HasPrefix(arg, ".") || strings.HasSuffix(arg, ".squashfs") {
		return true
	}
	info, err := os.Stat(arg)
	return err == nil && info.Mode().IsRegular()
}
