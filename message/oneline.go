package message

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// OneLine makes s, which others wrote, fit for a part of one line of at most limit octets of UTF-8.
// Nothing in it ends the line.
func OneLine(s string, limit int) string {
	s = strings.ToValidUTF8(s, "?")
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > limit {
		for !utf8.RuneStart(s[limit]) {
			limit--
		}
		s = s[:limit]
	}
	return strings.TrimSpace(s)
}
