package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Size is a number of bytes.
type Size int64

// Units of Size. They are powers of 1024, as those who set message limits mean them.
const (
	KB Size = 1 << 10
	MB Size = 1 << 20
	GB Size = 1 << 30
)

// UnmarshalText reads a whole number and a unit, like "50MB". KB, MB and GB mean the same as KiB,
// MiB and GiB; a number without a unit is in bytes. Case does not matter.
func (s *Size) UnmarshalText(text []byte) error {
	digits := strings.TrimRight(string(text), "KMGiBkmgIb")
	unit, ok := map[string]Size{
		"": 1, "kb": KB, "kib": KB, "mb": MB, "mib": MB, "gb": GB, "gib": GB,
	}[strings.ToLower(string(text[len(digits):]))]
	n, err := strconv.ParseUint(digits, 10, 63)
	if !ok || err != nil || Size(n) > math.MaxInt64/unit {
		return fmt.Errorf(`%q is not a size: write a whole number and KB, MB or GB, like "50MB"`, text)
	}
	*s = Size(n) * unit
	return nil
}

// String writes s in the largest unit that leaves a whole number, as UnmarshalText reads it.
func (s Size) String() string {
	switch {
	case s != 0 && s%GB == 0:
		return fmt.Sprintf("%dGB", s/GB)
	case s != 0 && s%MB == 0:
		return fmt.Sprintf("%dMB", s/MB)
	case s != 0 && s%KB == 0:
		return fmt.Sprintf("%dKB", s/KB)
	}
	return strconv.FormatInt(int64(s), 10)
}

// A Duration is a time.Duration that is read from text.
type Duration time.Duration

// UnmarshalText reads what time.ParseDuration reads: "90s", "1h30m", "120h".
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf(`%q is not a duration: write a number and s, m or h, like "25s"; 5 days are "120h"`, text)
	}
	*d = Duration(v)
	return nil
}

// String writes d as UnmarshalText reads it, without the zero minutes and seconds that
// time.Duration ends with.
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
