package yamlpos

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The patterns below are those of YAML 1.1 as PyYAML reads it, which differ from
// both the YAML 1.1 and the 1.2 specification: y and n are strings, a float needs
// a dot and a sign in its exponent.
var (
	intPattern = regexp.MustCompile(`^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)` +
		`|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$`)
	floatPattern = regexp.MustCompile(`^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?` +
		`|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?` +
		`|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*` +
		`|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$`)
	datePattern     = regexp.MustCompile(`^\d\d\d\d-\d\d-\d\d$`)
	datetimePattern = regexp.MustCompile(`^(\d\d\d\d)-(\d\d?)-(\d\d?)(?:[Tt]|[ \t]+)(\d\d?):(\d\d):(\d\d)` +
		`(?:\.(\d*))?(?:[ \t]*(Z|([-+])(\d\d?)(?::(\d\d))?))?$`)
)

// The locations that tell dates and local times from times with an offset.
var (
	dateOnly  = time.FixedZone("date", 0)
	localTime = time.FixedZone("local", 0)
)

// IsDate reports whether t was written as a date without a time of day.
func IsDate(t time.Time) bool { return t.Location().String() == dateOnly.String() }

func isLocal(t time.Time) bool { return t.Location().String() == localTime.String() }

// resolve returns the value of a plain scalar. The error says what is wrong with
// a text that has the form of a number or date but is none.
func resolve(text string) (any, error) {
	switch text {
	case "", "~", "null", "Null", "NULL":
		return nil, nil
	case "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON":
		return true, nil
	case "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF":
		return false, nil
	}
	if !strings.ContainsRune("+-.0123456789", rune(text[0])) || !isNumeric(text) {
		return text, nil
	}
	switch {
	case floatPattern.MatchString(text):
		return parseFloat(text)
	case intPattern.MatchString(text):
		return parseInt(text)
	case datePattern.MatchString(text):
		t, err := time.ParseInLocation(time.DateOnly, text, dateOnly)
		if err != nil || t.Year() == 0 {
			return nil, fmt.Errorf("'%s' is not a date of the calendar", text)
		}
		return t, nil
	}
	if m := datetimePattern.FindStringSubmatch(text); m != nil {
		return parseDatetime(text, m)
	}
	return text, nil
}

// numeric are the bytes of texts that one of the patterns can match. Versions,
// flags and paths begin as numbers do, and patterns cost more than a table.
var numeric = func() (set [256]bool) {
	for _, c := range []byte("0123456789abcdefABCDEF_+-.:xinfINFTtZ \t") {
		set[c] = true
	}
	return set
}()

func isNumeric(text string) bool {
	for i := range len(text) {
		if !numeric[text[i]] {
			return false
		}
	}
	return true
}

// maxDigits is how long an integer may be: Python refuses longer ones too, since
// reading them takes the square of their length.
const maxDigits = 4300

// parseInt reads an integer that matches intPattern.
func parseInt(text string) (any, error) {
	if len(text) > maxDigits {
		return nil, fmt.Errorf("an integer has at most %d digits, not %d", maxDigits, len(text))
	}
	digits := strings.ReplaceAll(text, "_", "")
	negative := strings.HasPrefix(digits, "-")
	digits = strings.TrimLeft(digits, "+-")
	base := 10
	switch {
	case strings.Contains(digits, ":"):
		return sexagesimal(digits, negative), nil
	case strings.HasPrefix(digits, "0b"):
		digits, base = digits[2:], 2
	case strings.HasPrefix(digits, "0x"):
		digits, base = digits[2:], 16
	case strings.HasPrefix(digits, "0"):
		base = 8
	}
	n, ok := new(big.Int).SetString(digits, base)
	if !ok {
		return nil, fmt.Errorf("'%s' is not an integer", text)
	}
	if negative {
		n.Neg(n)
	}
	return small(n), nil
}

// sexagesimal reads 12:30 as 12*60+30.
func sexagesimal(digits string, negative bool) any {
	sum, sixty := new(big.Int), big.NewInt(60)
	for part := range strings.SplitSeq(digits, ":") {
		n, _ := new(big.Int).SetString(part, 10) // the pattern allows digits only
		sum.Add(sum.Mul(sum, sixty), n)
	}
	if negative {
		sum.Neg(sum)
	}
	return small(sum)
}

func small(n *big.Int) any {
	if n.IsInt64() {
		return n.Int64()
	}
	return n
}

// parseFloat reads a float that matches floatPattern.
func parseFloat(text string) (any, error) {
	digits := strings.ToLower(strings.ReplaceAll(text, "_", ""))
	sign := 1.0
	if strings.HasPrefix(digits, "-") {
		sign = -1
	}
	digits = strings.TrimLeft(digits, "+-")
	switch {
	case digits == ".inf":
		return math.Inf(int(sign)), nil
	case digits == ".nan":
		return math.NaN(), nil
	case strings.Contains(digits, ":"):
		sum := 0.0
		for part := range strings.SplitSeq(digits, ":") {
			f, err := strconv.ParseFloat(part, 64)
			if err != nil {
				return nil, fmt.Errorf("'%s' is not a number", text)
			}
			sum = sum*60 + f
		}
		return sign * sum, nil
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil && !math.IsInf(f, 0) { // Python reads an overflow as infinity too
		return nil, fmt.Errorf("'%s' is not a number", text)
	}
	return sign * f, nil
}

// parseDatetime reads the parts of a text that matches datetimePattern.
func parseDatetime(text string, m []string) (any, error) {
	n := func(i int) int {
		v, _ := strconv.Atoi(m[i]) // digits only, at most four, or empty
		return v
	}
	fraction := (m[7] + "000000")[:6]
	micro, _ := strconv.Atoi(fraction)
	where := localTime
	if m[8] != "" {
		offset := n(10)*3600 + n(11)*60
		if m[9] == "-" {
			offset = -offset
		}
		if n(10) > 23 || n(11) > 59 {
			return nil, fmt.Errorf("'%s' has no valid offset from UTC", text)
		}
		where = time.FixedZone("", offset)
	}
	t := time.Date(n(1), time.Month(n(2)), n(3), n(4), n(5), n(6), micro*1000, where)
	if t.Year() != n(1) || n(1) == 0 || int(t.Month()) != n(2) || t.Day() != n(3) || t.Hour() != n(4) || t.Minute() != n(5) || t.Second() != n(6) {
		return nil, fmt.Errorf("'%s' is not a time of the calendar", text)
	}
	return t, nil
}

// tagged returns the value of a scalar with an explicit core tag.
func tagged(tag, text string) (any, error) {
	if tag == "!!str" {
		return text, nil
	}
	v, err := resolve(text)
	if err != nil {
		return nil, err
	}
	ok := false
	switch tag {
	case "!!null":
		return nil, nil
	case "!!bool":
		_, ok = v.(bool)
	case "!!int":
		switch v.(type) {
		case int64, *big.Int:
			ok = true
		}
	case "!!float":
		if i, isInt := v.(int64); isInt {
			v = float64(i)
		}
		_, ok = v.(float64)
	case "!!timestamp":
		_, ok = v.(time.Time)
	}
	if !ok {
		return nil, fmt.Errorf("'%s' does not fit its tag %s", text, tag)
	}
	return v, nil
}
