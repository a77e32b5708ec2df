// Package keeptime reads how long something is to be kept.
package keeptime

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Max is the longest time that is accepted.
const Max = 10 * 365 * 24 * time.Hour

// ErrInvalid is of a text that is no time to keep something.
var ErrInvalid = fmt.Errorf("not a time such as 24h, 7d or 1d12h, from 1s to %dd", Max/(24*time.Hour))

// Parse reads a duration as Go writes them, which may begin with days.
func Parse(text string) (time.Duration, error) {
	days, rest, inDays := strings.Cut(text, "d")
	if !inDays {
		days, rest = "0", text
	} else if rest == "" {
		rest = "0s"
	}
	n, err := strconv.ParseUint(days, 10, 16)
	d, durationErr := time.ParseDuration(rest)
	keep := time.Duration(n)*24*time.Hour + d
	if errors.Join(err, durationErr) != nil || d < 0 || keep < time.Second || keep > Max {
		return 0, fmt.Errorf("%.40q is %w", text, ErrInvalid)
	}
	return keep, nil
}
