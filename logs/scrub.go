package logs

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"relayd/address"
)

// A scrubber takes out of texts what a level forbids. IP addresses are forbidden by every level
// that has one.
type scrubber struct {
	locals  bool // local parts of mailboxes are forbidden
	domains bool // and domains

	ip4, ip6, reversed, rewritten, domain *regexp.Regexp
}

func newScrubber(p Privacy) *scrubber {
	return &scrubber{
		locals:  p != NoIP,
		domains: p == None,
		// Providers write the addresses of customers into host names, with dots or hyphens.
		ip4: regexp.MustCompile(`[0-9]{1,3}(?:[.-][0-9]{1,3}){3,}`),
		ip6: regexp.MustCompile(`[0-9A-Fa-f]*:[0-9A-Fa-f:.]*`),
		// The names of RFC 3596 section 2.5, which block lists use as well.
		reversed: regexp.MustCompile(`(?:[0-9A-Fa-f][.-]){15,}[0-9A-Fa-f]`),
		// A local part that SRS made has the sender in it, and stands alone in some errors.
		rewritten: regexp.MustCompile(`(?i)SRS[01][=+-][^\s<>()\[\]:;,"\\@]*`),
		domain:    regexp.MustCompile(`[\pL\pN\pM_-]+(?:\.[\pL\pN\pM_-]+)*\.\pL[\pL\pN\pM_-]+`),
	}
}

// scrub takes out what is found by how it is written.
func (s *scrubber) scrub(text string) string {
	text = s.scrubOwn(text)
	if s.domains {
		text = s.domain.ReplaceAllStringFunc(text, func(name string) string {
			if name == "relayd.toml" || name == "domain.toml" {
				return name // messages say where a setting is
			}
			return mask
		})
	}
	return text
}

// scrubOwn is scrub for texts whose domains are ours.
func (s *scrubber) scrubOwn(text string) string {
	if s.locals {
		text = s.withoutMailboxes(s.rewritten.ReplaceAllString(text, mask))
	}
	return s.withoutIPs(text)
}

func (s *scrubber) withoutIPs(text string) string {
	text = s.ip6.ReplaceAllStringFunc(text, func(run string) string {
		// Neither a time of day nor an address before a port has a double colon, or seven.
		if strings.Contains(run, "::") && len(run) > 2 || strings.Count(run, ":") >= 7 {
			return mask
		}
		return run
	})
	return s.ip4.ReplaceAllString(s.reversed.ReplaceAllString(text, mask), mask)
}

// withoutMailboxes takes out what stands before each "@", and behind it where domains are
// forbidden. It goes from the last to the first, for a quoted local part may have an "@" in it.
func (s *scrubber) withoutMailboxes(text string) string {
	for at := strings.LastIndexByte(text, '@'); at >= 0; at = strings.LastIndexByte(text[:at], '@') {
		start := localStart(text[:at])
		if start == at {
			continue
		}
		end := at
		if s.domains {
			end = domainEnd(text, at+1)
		}
		text = text[:start] + mask + text[end:]
		at = start
	}
	return text
}

// localStart is where the local part begins that text ends with. That of a quoted one is sought
// from the front: quotes may be escaped once more in an error, and too much is better than too little.
func localStart(text string) int {
	before, quoted := strings.CutSuffix(text, `"`)
	if !quoted {
		return strings.LastIndexAny(text, localEnds) + 1
	}
	first := strings.IndexByte(before, '"')
	if first < 0 {
		return 0 // the text was cut off
	}
	return len(strings.TrimRight(text[:first], `\`))
}

// localEnds cannot stand in a local part without quotes.
const localEnds = " \t\r\n\v\f<>()[]:;,\"\\@"

// domainEnd is where the domain that begins at start ends.
func domainEnd(text string, start int) int {
	if rest := text[start:]; strings.HasPrefix(rest, "[") {
		if i := strings.IndexByte(rest, ']'); i >= 0 {
			return start + i + 1
		}
	}
	for i, r := range text[start:] {
		if !isWord(r) && !strings.ContainsRune(".-_"+mask, r) {
			return start + i
		}
	}
	return len(text)
}

// paths takes apart what the value of an attribute names: one mailbox, or several in angle brackets.
func paths(text string) []string {
	list := strings.Split(text, ">, <")
	for i, path := range list {
		list[i] = strings.TrimSuffix(strings.TrimPrefix(path, "<"), ">")
	}
	return list
}

// person is the value of an attribute that names mailboxes. What is no
// mailbox, as a user name that somebody tried to log in with, is taken out whole.
func (s *scrubber) person(text string) string {
	if !s.locals {
		return s.withoutIPs(text)
	}
	if text == "" || text == "<>" {
		return text
	}
	var list []string
	for _, path := range paths(text) {
		a, err := address.Parse(path)
		if err != nil || s.domains {
			return mask
		}
		list = append(list, mask+"@"+a.Domain)
	}
	masked := strings.Join(list, ">, <")
	if strings.HasPrefix(text, "<") {
		masked = "<" + masked + ">"
	}
	return s.withoutIPs(masked)
}

// withoutWords takes words out of a text wherever they stand alone, in any case.
func (s *scrubber) withoutWords(text string, words []string) string {
	for _, word := range words {
		text = withoutWord(text, word)
	}
	return text
}

func withoutWord(text, word string) string {
	var b strings.Builder
	for i := 0; i < len(text); {
		end := i + foldedPrefix(text[i:], word)
		if end > i && alone(text, i, end) {
			b.WriteString(mask)
			i = end
			continue
		}
		_, size := utf8.DecodeRuneInString(text[i:])
		b.WriteString(text[i : i+size])
		i += size
	}
	return b.String()
}

// foldedPrefix is the length in bytes of the prefix of text that is word in some case; 0 if there
// is none.
func foldedPrefix(text, word string) int {
	n := utf8.RuneCountInString(word)
	end := 0
	for range n {
		_, size := utf8.DecodeRuneInString(text[end:])
		if size == 0 {
			return 0
		}
		end += size
	}
	if !strings.EqualFold(text[:end], word) {
		return 0
	}
	return end
}

// alone reports whether text[start:end] is not a part of a longer word.
func alone(text string, start, end int) bool {
	before, _ := utf8.DecodeLastRuneInString(text[:start])
	after, _ := utf8.DecodeRuneInString(text[end:])
	return (start == 0 || !isWord(before)) && (end == len(text) || !isWord(after))
}

func isWord(r rune) bool { return unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r) }
