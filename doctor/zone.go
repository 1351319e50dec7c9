package doctor

import (
	"fmt"
	"strings"

	"relayd/dkim"
)

// Zone is the record as one line of a zone file (RFC 1035 section 5.1) with its name absolute, and
// TXT in quoted strings of up to 255 octets.
func (r Record) Zone() string {
	if r.Type == "TXT" {
		return dkim.Record{Name: r.Name, Type: r.Type, Value: r.Value}.Zone()
	}
	return r.Name + ". IN " + r.Type + " " + r.Value
}

// ZoneFile is the records as a part of the zone of domain, to be included there. What belongs into
// another zone or has no value stands in it as a comment, so that it loads without an error.
func ZoneFile(domain string, records []Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "; Records for mail of %s through relayd, to be put into its zone.\n", domain)
	for _, r := range records {
		fmt.Fprintf(&b, "; %s\n", r.Why)
		switch {
		case r.Value == "":
			fmt.Fprintf(&b, ";%s. IN %s (write the value)\n", r.Name, r.Type)
		case r.Where != "":
			fmt.Fprintf(&b, "; %s:\n;%s\n", r.Where, r.Zone())
		default:
			fmt.Fprintln(&b, r.Zone())
		}
	}
	return b.String()
}
