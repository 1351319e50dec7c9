package queue

import (
	"regexp"
	"strings"

	"golang.org/x/net/idna"

	"relayd/address"
)

// Mask puts alias in the place of target wherever a remote server's words name it: the whole
// address however it is written, the name alone, and the domain and its hosts.
func Mask(text string, target, alias address.Address) string {
	if target.IsNull() || target == alias {
		return text
	}
	pattern := traces(target)
	var b strings.Builder
	for at := 0; at < len(text); {
		m := pattern.FindStringSubmatchIndex(text[at:])
		if m == nil {
			b.WriteString(text[at:])
			break
		}
		from, to := at+m[0], at+m[1]
		whole, domain := m[2] >= 0, m[4] >= 0
		switch {
		case whole:
			b.WriteString(text[at:from] + alias.String())
		case inWord(text, from, to) || isNumber(text[from:to]):
			to = from + 1
			b.WriteString(text[at:to])
		case domain:
			b.WriteString(strings.TrimRightFunc(text[at:from], isHost) + alias.Domain)
		default:
			b.WriteString(text[at:from] + address.QuoteLocal(alias.Local))
		}
		at = to
	}
	return b.String()
}

// traces finds target: as group 1 whole, as group 2 by its domain, else by its name alone.
func traces(target address.Address) *regexp.Regexp {
	local := either(target.Local, address.QuoteLocal(target.Local), strings.Trim(address.QuoteLocal(target.Local), `"`))
	domains := []string{target.Domain}
	if unicode, err := idna.ToUnicode(target.Domain); err == nil {
		domains = append(domains, unicode)
	}
	domain := either(domains...)
	return regexp.MustCompile(`(?i)(` + local + `\s*[@%]\s*` + domain + `|` + domain + `\s*[=!]\s*` + local + `)|(` + domain + `)|` + local)
}

// either matches any of these. The blanks in them match any, for a reply's are made single.
func either(texts ...string) string {
	for i, t := range texts {
		texts[i] = strings.ReplaceAll(regexp.QuoteMeta(t), " ", `\s+`)
	}
	return `(?:` + strings.Join(texts, "|") + `)`
}

// inWord reports whether text[from:to] is just a part of a longer word.
func inWord(text string, from, to int) bool {
	return from > 0 && isWord(text[from-1]) || to < len(text) && isWord(text[to])
}

func isWord(c byte) bool {
	return c == '-' || c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80
}

// isHost is for what stands in front of a domain in the name of one of its hosts.
func isHost(r rune) bool { return r == '.' || r >= 0x80 || isWord(byte(r)) }

// isNumber reports whether a name is like a reply code, which must stay.
func isNumber(s string) bool { return len(s) <= 3 && strings.Trim(s, "0123456789") == "" }
