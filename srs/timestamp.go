package srs

import (
	"strings"
	"time"
)

// Days are counted modulo 1024, which two base32 characters hold.
const (
	base32Digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	dayCycle     = 1024
)

// today is the day since 1970 in UTC, modulo 1024.
func today(now time.Time) int64 {
	seconds := now.Unix()
	const perDay = int64(day / time.Second)
	d := seconds / perDay
	if seconds%perDay < 0 {
		d--
	}
	return ((d % dayCycle) + dayCycle) % dayCycle
}

func timestamp(now time.Time) string {
	d := today(now)
	return string([]byte{base32Digits[d/32], base32Digits[d%32]})
}

// current reports whether the timestamp tt is neither too old nor in the future. One day ahead
// is allowed for: another server of ours may have made it, whose clock has passed midnight.
func (r *Rewriter) current(tt string, now time.Time) bool {
	tt = strings.ToUpper(tt)
	if len(tt) != 2 {
		return false
	}
	high, low := strings.IndexByte(base32Digits, tt[0]), strings.IndexByte(base32Digits, tt[1])
	if high < 0 || low < 0 {
		return false
	}
	age := (today(now) - int64(high*32+low) + dayCycle) % dayCycle
	return age <= r.maxDays || age == dayCycle-1
}
