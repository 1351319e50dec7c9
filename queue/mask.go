package queue

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/net/idna"

	"relayd/address"
)

// mask puts alias in the place of target wherever a remote server's words name it: the whole
// address however it is written, the domain and its hosts, and the local part alone where it stands
// for a mailbox and not as a word of the sentence. "you" and "mail" are local parts, too.
func mask(text string, target, alias address.Address) string {
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
		case inWord(text, from, to) || !domain && !isMailbox(text, from, to):
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

// traces finds target: as group 1 whole, as group 2 by its domain, else by its local part alone.
func traces(target address.Address) *regexp.Regexp {
	quoted := address.QuoteLocal(target.Local)
	local := either(target.Local, quoted, strings.Trim(quoted, `"`), url.QueryEscape(target.Local), url.PathEscape(target.Local))
	domains := []string{target.Domain}
	if unicode, err := idna.ToUnicode(target.Domain); err == nil {
		domains = append(domains, unicode)
	}
	domain := either(domains...)
	const at = `(?:\s*(?:@|%40|[%=]|[(\[]at[)\]])\s*|\s+at\s+)`
	return regexp.MustCompile(`(?i)(` + local + at + domain + `|` + domain + `\s*[=!]\s*` + local + `)|(` + domain + `)|` + local)
}

// either matches any of these. The blanks in them match any, for a reply's are made single.
func either(texts ...string) string {
	for i, t := range texts {
		texts[i] = strings.ReplaceAll(regexp.QuoteMeta(t), " ", `\s+`)
	}
	return `(?:` + strings.Join(texts, "|") + `)`
}

var (
	// mailboxBefore is what a mailbox is named after.
	mailboxBefore = regexp.MustCompile(`(?i)\b(?:(?:to|rcpt|local|orig_to)\s*[=:]\s*|` +
		`(?:user|username|login|mailbox|inbox|recipient|account|addressee|address|alias)(?:\s+name)?(?:\s*[=:]\s*|\s+(?:(?:for|of|named|called)\s+)?))$`)
	// mailboxBehind is what is said of one; the three dots are sendmail's.
	mailboxBehind = regexp.MustCompile(`(?i)^(?:\.\.\.|\s+(?:is\s+)?(?:unknown|not\s+found|not\s+known|disabled|over\s+quota)\b|\s+(?:does\s+not|doesn't)\s+exist\b)`)
)

// maxBefore is longer than what mailboxBefore finds in any sensible sentence.
const maxBefore = 60

// isMailbox reports whether text[from:to], which is a local part, stands there for its mailbox.
func isMailbox(text string, from, to int) bool {
	word := text[from:to]
	switch around(text, from, to) {
	case "<>", `""`, "''", "``":
		return true
	case "()", "[]", "{}":
		return !isOrdinary(word)
	}
	if isOrdinary(word) {
		return false
	}
	return isDistinct(word) && standsAlone(text, from, to) || mailboxBefore.MatchString(text[max(0, from-maxBefore):from]) || mailboxBehind.MatchString(text[to:])
}

// around is the byte before text[from:to] with the one behind it; "" at an end of the text.
func around(text string, from, to int) string {
	if from == 0 || to == len(text) {
		return ""
	}
	return text[from-1:from] + text[to:to+1]
}

// isDistinct reports whether a word can hardly be anything but a name, like "jane.doe".
func isDistinct(word string) bool { return strings.ContainsAny(word, "._+") }

// standsAlone reports whether text[from:to] is not part of a path, of a host's name or the like.
func standsAlone(text string, from, to int) bool {
	behind := strings.TrimLeft(text[to:], ".,:;!?")
	return (from == 0 || text[from-1] == ' ') && (behind == "" || behind[0] == ' ')
}

// isOrdinary reports whether a word may well stand in any reply: one of few letters, or one that
// replies are made of. It is no secret as a local part either.
func isOrdinary(word string) bool {
	letters := 0
	for _, r := range word {
		if unicode.IsLetter(r) {
			letters++
		}
	}
	return letters < 3 || slices.Contains(strings.Fields(ordinary), strings.ToLower(word))
}

// ordinary are words of replies, and local parts that every domain has.
const ordinary = `
		abuse access account action address admin after again all allowed and any are authentication bad been before being
		block blocked blocklist body bounce but bytes can cannot client closed closing code command connect connecting
		connection contact contains content could data date deferred delayed delivered delivery denied destination detected
		did dkim dmarc dns does domain due email error exceeded exist exists expired failed failure file filter for forbidden
		forged found from full greylisted has have header hello help home host ignored inactive inbox info information invalid
		its known later limit line list listed local locked lookup mail mailbox mailer mailing malformed marketing match
		maximum media message messages moved must name network new news noreply not now number off office our out over owner
		pass password permanent please policy postmaster private problem quota quoted rate reached read reason received
		recipient recipients record refused rejected relay reply report reputation request resources return reverse root
		routing sales see send sender sending sent server service session size smtp some source spam spf start state status
		storage stored such suspended support syntax system team temporary temporarily test that the their there these this
		time timeout too transaction trying unable unavailable unknown unsolicited url use used user username users valid
		verification verify virus visit was web webmaster were what when with you your`

// inWord reports whether text[from:to] is just a part of a longer word.
func inWord(text string, from, to int) bool {
	return from > 0 && isWord(text[from-1]) || to < len(text) && isWord(text[to])
}

func isWord(c byte) bool {
	return c == '-' || c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80
}

// isHost is for what stands in front of a domain in the name of one of its hosts.
func isHost(r rune) bool { return r == '.' || r >= 0x80 || isWord(byte(r)) }
