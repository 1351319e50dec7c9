package mtasts

import "strings"

const (
	wsp     = " \t"
	version = "STSv1"
	maxID   = 32
)

// parseRecords returns the id in the TXT records of a domain's _mta-sts name. It is "" unless
// exactly one of them is an MTA-STS record and that one is valid (RFC 8461 section 3.1).
func parseRecords(records []string) string {
	id, found := "", 0
	for _, record := range records {
		// The grammar lets white space stand before the semicolon.
		rest, ok := strings.CutPrefix(record, "v="+version)
		fields, delimited := strings.CutPrefix(strings.TrimLeft(rest, wsp), ";")
		if ok && delimited {
			id, found = parseFields(fields), found+1
		}
	}
	if found != 1 {
		return ""
	}
	return id
}

// parseFields returns the id among fields with a semicolon between them, "" if one is malformed or
// there is not one id. Fields with other names are for extensions.
func parseFields(s string) string {
	s = strings.TrimRight(s, wsp)
	s = strings.TrimSuffix(s, ";")
	id := ""
	for field := range strings.SplitSeq(s, ";") {
		name, value, ok := strings.Cut(strings.Trim(field, wsp), "=")
		switch {
		case !ok || !isExtensionName(name) || !isExtensionValue(value):
			return ""
		case name != "id":
		case id != "" || len(value) > maxID || !all(value, isAlphanumeric):
			return ""
		default:
			id = value
		}
	}
	return id
}

// isExtensionName reports whether s can be the name of a field, in a record or in a policy.
func isExtensionName(s string) bool {
	return s != "" && len(s) <= 32 && isAlphanumeric(s[0]) && all(s, func(c byte) bool {
		return isAlphanumeric(c) || c == '_' || c == '-' || c == '.'
	})
}

func isExtensionValue(s string) bool {
	return s != "" && all(s, func(c byte) bool { return c > ' ' && c < 0x7f && c != ';' && c != '=' })
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func all(s string, is func(byte) bool) bool {
	for i := range len(s) {
		if !is(s[i]) {
			return false
		}
	}
	return true
}
