package event

import "fmt"

// FormatBytes writes a number of bytes with three significant digits.
func FormatBytes(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	value, unit := float64(n), 0
	for value >= 999.5 && unit < len(units)-1 {
		value /= 1000
		unit++
	}
	switch {
	case unit == 0:
		return fmt.Sprintf("%d B", n)
	case value < 9.995:
		return fmt.Sprintf("%.2f %s", value, units[unit])
	case value < 99.95:
		return fmt.Sprintf("%.1f %s", value, units[unit])
	}
	return fmt.Sprintf("%.0f %s", value, units[unit])
}
