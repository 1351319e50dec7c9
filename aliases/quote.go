package aliases

import (
	"iter"
	"strings"
)

// blanks are the bytes that separate words of a line.
const blanks = " \t"

// indexUnquoted returns the first index of s outside double quotes for which is reports true,
// or -1. Inside quotes a backslash takes the next byte as it is. The second result is false
// when the search ran to the end of s inside quotes.
func indexUnquoted(s string, is func(i int) bool) (int, bool) {
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case quoted && s[i] == '\\':
			i++
		case !quoted && is(i):
			return i, true
		}
	}
	return -1, !quoted
}

// withoutComment cuts s at a "#" that begins it or follows a blank.
func withoutComment(s string) string {
	i, _ := indexUnquoted(s, func(i int) bool {
		return s[i] == '#' && (i == 0 || isBlank(s[i-1]))
	})
	if i < 0 {
		return s
	}
	return s[:i]
}

// splitUnquoted yields the parts of s between the sep bytes outside quotes.
func splitUnquoted(s string, sep byte) iter.Seq[string] {
	return func(yield func(string) bool) {
		for {
			i, _ := indexUnquoted(s, func(i int) bool { return s[i] == sep })
			if i < 0 {
				yield(s)
				return
			}
			if !yield(s[:i]) {
				return
			}
			s = s[i+1:]
		}
	}
}

// fields splits s at the blanks outside quotes; the quotes stay.
func fields(s string) []string {
	var words []string
	for s = strings.TrimLeft(s, blanks); s != ""; s = strings.TrimLeft(s, blanks) {
		i, _ := indexUnquoted(s, func(i int) bool { return isBlank(s[i]) })
		if i < 0 {
			i = len(s)
		}
		words = append(words, s[:i])
		s = s[i:]
	}
	return words
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// unquoteField removes the quotes of a field, wherever in it they stand.
func unquoteField(s string) string {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			quoted = !quoted
			continue
		case quoted && s[i] == '\\' && i+1 < len(s):
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// joinFields writes fields so that fields and unquoteField give them back.
func joinFields(words []string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	quoted := make([]string, len(words))
	for i, w := range words {
		if w == "" || strings.ContainsAny(w, " \t,#\"\\") {
			w = `"` + escape.Replace(w) + `"`
		}
		quoted[i] = w
	}
	return strings.Join(quoted, " ")
}
