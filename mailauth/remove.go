package mailauth

import (
	"bytes"
	"strings"

	"relayd/address"
)

// resultsName is the name of the field, in lower case.
const resultsName = "authentication-results"

// RemoveResults returns a header, the bytes before the blank line, without the whole
// Authentication-Results fields whose authserv-id is hostname (RFC 8601 section 5), and every other
// byte as it was. A field is taken for one of ours as soon as a lenient reader might: the case of
// the name, comments, quotes, folding, a version or a dot at the end make no difference, nor does
// what is behind the name.
//
// Where there is nothing to remove the result is header itself; header is never changed.
func RemoveResults(header []byte, hostname string) []byte {
	var kept []byte
	from := 0 // where what is to be kept next begins
	for start := 0; start < len(header); {
		end := fieldEnd(header, start)
		if isResultsOf(header[start:end], hostname) {
			kept = append(kept, header[from:start]...)
			from = end
		}
		start = end
	}
	if from == 0 {
		return header
	}
	return append(kept, header[from:]...)
}

// fieldEnd is where the field ends that begins at start: at the end of its last line, which is the
// next one that is not followed by white space.
func fieldEnd(header []byte, start int) int {
	for {
		i := bytes.IndexByte(header[start:], '\n')
		if i < 0 {
			return len(header)
		}
		start += i + 1
		if start == len(header) || header[start] != ' ' && header[start] != '\t' {
			return start
		}
	}
}

// isResultsOf reports whether a field is an Authentication-Results in the name of hostname.
func isResultsOf(field []byte, hostname string) bool {
	name, value, ok := bytes.Cut(field, []byte(":"))
	if !ok || !strings.EqualFold(string(bytes.TrimRight(name, " \t")), resultsName) {
		return false
	}
	id := servID(string(value))
	return id != "" && sameID(id, hostname)
}

// servID reads the authserv-id at the start of a value: behind comments and white space, a
// quoted-string or whatever there is before something that ends a name. It is "" where there is none.
func servID(value string) string {
	s := skipCFWS(value)
	if quoted, ok := strings.CutPrefix(s, `"`); ok {
		return unquote(quoted)
	}
	end := strings.IndexFunc(s, func(c rune) bool {
		return c <= ' ' || c == 0x7f || strings.ContainsRune(`();,"/=\<>`, c)
	})
	if end < 0 {
		end = len(s)
	}
	return s[:end]
}

// skipCFWS drops white space, line ends and comments, which nest (RFC 5322 section 3.2.2).
func skipCFWS(s string) string {
	depth := 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case c == '\\' && depth > 0:
			i++
		case depth == 0 && c > ' ' && c != 0x7f:
			return s[i:]
		}
	}
	return ""
}

// unquote reads a quoted-string behind its first quote, to the next one or to the end. White space
// means nothing in a name.
func unquote(s string) string {
	var b strings.Builder
	for i := 0; i < len(s) && s[i] != '"'; i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		if s[i] > ' ' {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// sameID compares an authserv-id with our name: as domains, so that U-labels are A-labels.
func sameID(id, hostname string) bool {
	if domain, err := address.Domain(id); err == nil {
		id = domain
	}
	if domain, err := address.Domain(hostname); err == nil {
		hostname = domain
	}
	return strings.EqualFold(strings.TrimSuffix(id, "."), hostname)
}
