package mailauth

import (
	"net/url"
	"strings"
)

// A Policy is what a domain asks to be done with mail that fails DMARC.
type Policy string

// The policies of RFC 9989 section 4.7. The empty Policy is that of a domain without a record.
const (
	PolicyNone       Policy = "none"
	PolicyQuarantine Policy = "quarantine"
	PolicyReject     Policy = "reject"
)

// A record is a DMARC policy record, with its defaults in place.
type record struct {
	usable      bool   // false: there is no policy in it, and nobody to report that to
	policy      Policy // p=
	subdomain   Policy // sp=, or p=
	nonexistent Policy // np=, sp= or p=
	strictDKIM  bool   // adkim=s
	strictSPF   bool   // aspf=s
	testing     bool   // t=y
	psd         string // "y", "n" or "u"
}

// maxRecord is the longest record that is read, in octets; real ones have a few hundred.
const maxRecord = 8 << 10

// parseRecord reads a DMARC policy record (RFC 9989 section 4.8). It is not ok for text that does
// not begin with v=DMARC1, which is no record at all. Tags that are unknown or malformed, pct among
// them, do not count; of a tag that stands twice the first one does.
func parseRecord(txt string) (r record, ok bool) {
	if len(txt) > maxRecord {
		return record{}, false
	}
	first, rest, _ := strings.Cut(txt, ";")
	if name, value := cutTag(first); name != "v" || value != "DMARC1" {
		return record{}, false
	}
	tags := map[string]string{}
	for part := range strings.SplitSeq(rest, ";") {
		name, value := cutTag(part)
		if _, twice := tags[name]; name != "" && !twice {
			tags[name] = value
		}
	}
	r = record{
		strictDKIM: strings.EqualFold(tags["adkim"], "s"),
		strictSPF:  strings.EqualFold(tags["aspf"], "s"),
		testing:    strings.EqualFold(tags["t"], "y"),
		psd:        "u",
	}
	if psd := strings.ToLower(tags["psd"]); psd == "y" || psd == "n" {
		r.psd = psd
	}
	r.setPolicies(tags)
	return r, true
}

// setPolicies reads p, sp and np. Where one of them is not valid, the record is one of p=none if it
// names where to report that to, and else of no use (RFC 9989 section 4.10.1).
func (r *record) setPolicies(tags map[string]string) {
	var valid [3]bool
	r.policy, valid[0] = policyTag(tags, "p", "")
	r.subdomain, valid[1] = policyTag(tags, "sp", r.policy)
	r.nonexistent, valid[2] = policyTag(tags, "np", r.subdomain)
	r.usable = valid == [3]bool{true, true, true}
	if !r.usable && reportable(tags["rua"]) {
		r.usable, r.policy, r.subdomain, r.nonexistent = true, PolicyNone, PolicyNone, PolicyNone
	}
}

// policyTag is the policy in a tag; absent is for a record without the tag, and "" is not valid.
func policyTag(tags map[string]string, name string, absent Policy) (p Policy, valid bool) {
	value, ok := tags[name]
	if !ok {
		return absent, absent != ""
	}
	switch p := Policy(strings.ToLower(value)); p {
	case PolicyNone, PolicyQuarantine, PolicyReject:
		return p, true
	}
	return "", false
}

// cutTag takes "name = value" apart; the name is in lower case, and "" where there is none.
func cutTag(part string) (name, value string) {
	name, value, ok := strings.Cut(part, "=")
	name, value = strings.Trim(name, " \t"), strings.Trim(value, " \t")
	if !ok || strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz") != "" {
		return "", ""
	}
	return strings.ToLower(name), value
}

// reportable reports whether one of the URIs in a list is one.
func reportable(list string) bool {
	for item := range strings.SplitSeq(list, ",") {
		u, err := url.Parse(strings.Trim(item, " \t"))
		if err == nil && u.Scheme != "" && (u.Opaque != "" || u.Host != "") {
			return true
		}
	}
	return false
}
