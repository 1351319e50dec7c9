package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dmarc"
	mdns "github.com/miekg/dns"

	"relayd/dns"
)

// isAbsent reports whether DNS has answered that there is nothing.
func isAbsent(err error) bool {
	return errors.Is(err, dns.ErrNotExist) || errors.Is(err, dns.ErrNoData)
}

// texts are the TXT records of an answer, the strings of each joined.
func (a answer) texts() []string {
	var list []string
	for _, rr := range a.records {
		if txt, ok := rr.(*mdns.TXT); ok {
			list = append(list, strings.Join(pieces(txt), ""))
		}
	}
	return list
}

// tags reads a list of tags (RFC 6376 section 3.2), with all white space taken out of the values.
func tags(record string) map[string]string {
	m := map[string]string{}
	for part := range strings.SplitSeq(record, ";") {
		name, value, ok := strings.Cut(part, "=")
		if name = strings.TrimSpace(name); ok && m[name] == "" {
			m[name] = squeezed(value)
		}
	}
	return m
}

func squeezed(s string) string { return strings.Join(strings.Fields(s), "") }

// judgeDKIM compares the record of a key with the one that it should be.
func judgeDKIM(r Record, a answer) Finding {
	found := a.texts()
	var keys []string // the records that look like keys
	for _, text := range found {
		if t := tags(text); t["p"] != "" || strings.Contains(text, "p=") || strings.HasPrefix(text, "v=DKIM1") {
			keys = append(keys, text)
		}
	}
	publish := func(f Finding) Finding {
		return f.do("publish it as one record, whole: %s (relay-util dns --zone prints it split as zone files need it)", r.text())
	}
	switch {
	case len(found) == 0:
		return r.missing(a)
	case len(found) > 1 && inPieces(r.Value, found):
		return publish(r.about(Fail, a, "it is split wrong: its %d pieces stand in a record each, not as strings of one record", len(found)))
	case len(keys) > 1:
		return r.about(Fail, a, "there are %d records, so no receiver knows which one counts", len(keys)).do("leave this one alone: %s", r.text())
	case len(keys) == 0:
		return publish(r.about(Fail, a, "what stands there is no DKIM key"))
	}
	return publish(judgeKey(r, a, keys[0]))
}

// judgeKey compares a single key record.
func judgeKey(r Record, a answer, text string) Finding {
	want, have := tags(r.Value), tags(text)
	unquoted := squeezed(strings.ReplaceAll(text, `"`, ""))
	rawKey := text[strings.LastIndex(text, "p=")+len("p="):]
	rawKey, _, _ = strings.Cut(rawKey, ";")
	switch {
	case text == r.Value:
		return r.about(OK, a, "it is the public half of our key")
	case strings.Contains(text, `"`) && unquoted == squeezed(r.Value):
		return r.about(Fail, a, "it is split wrong: quotes stand within the value")
	case have["p"] == want["p"] && strings.ContainsAny(strings.TrimSpace(rawKey), " \t\r\n"):
		return r.about(Fail, a, "it is split wrong: the pieces of p= are joined with blanks, which some receivers do not read")
	case have["p"] == want["p"] && (have["k"] == want["k"] || have["k"] == "" && want["k"] == "rsa") && (have["v"] == "" || have["v"] == "DKIM1"):
		if strings.Contains(have["t"], "y") {
			return r.about(Warn, a, "it is our key, marked as a test (t=y), so that receivers may pass over it")
		}
		return r.about(OK, a, "it is the public half of our key")
	case have["p"] == "":
		return r.about(Fail, a, "p= is empty, which says that the key was withdrawn")
	case strings.HasPrefix(want["p"], have["p"]):
		return r.about(Fail, a, "p= is cut off after %d of %d characters", len(have["p"]), len(want["p"]))
	}
	return r.about(Fail, a, "it is another key than the one that signs here")
}

// inPieces reports whether the records are pieces of a value, each of them found in it and together
// as long.
func inPieces(value string, records []string) bool {
	length := 0
	for _, piece := range records {
		if !strings.Contains(value, piece) {
			return false
		}
		length += len(piece)
	}
	return length == len(value)
}

// checkDMARC looks for the policy of a domain, or of one above it, which then holds for it too.
func (d *Doctor) checkDMARC(ctx context.Context, r Record) Finding {
	f := d.judged(ctx, r, func(a answer) Finding { return judgeDMARC(r, a) })
	if len(f.Found) > 0 || f.Status != Fail {
		return f
	}
	domain := strings.TrimPrefix(r.Name, "_dmarc.")
	for _, above, _ := strings.Cut(domain, "."); strings.Contains(above, "."); _, above, _ = strings.Cut(above, ".") {
		texts, err := d.opt.Resolver.TXT(ctx, "_dmarc."+above)
		if err == nil && slices.ContainsFunc(texts, isDMARC) {
			g := r.about(OK, answer{}, "that of %s holds for it", above)
			return g
		}
	}
	return f
}

func isDMARC(text string) bool {
	version, _, _ := strings.Cut(text, ";")
	return squeezed(version) == "v=DMARC1"
}

func judgeDMARC(r Record, a answer) Finding {
	texts := slices.DeleteFunc(a.texts(), func(text string) bool { return !isDMARC(text) })
	switch {
	case len(a.records) == 0:
		return r.missing(a)
	case len(texts) == 0:
		return r.about(Fail, a, "what stands there is no DMARC record: it must begin with v=DMARC1;").do("publish %s", r.text())
	case len(texts) > 1:
		return r.about(Fail, a, "there are %d records, so none of them counts", len(texts)).do("leave one alone, such as %s", r.text())
	}
	record, err := dmarc.Parse(texts[0])
	if err != nil {
		return r.about(Fail, a, "it cannot be read: %v", err).do("change it to %s", r.text())
	}
	return r.about(OK, a, "p=%s", record.Policy)
}

// policyOf is the DMARC policy in a finding of checkDMARC; "" if there is none.
func policyOf(f Finding) dmarc.Policy {
	if f.Status != OK || len(f.Found) == 0 {
		return ""
	}
	for _, text := range f.Found {
		if record, err := dmarc.Parse(text); err == nil {
			return record.Policy
		}
	}
	return ""
}

// DMARCAdvice is the next step of a domain whose records are all right; nil if there is none.
func DMARCAdvice(domain string, list []Finding) []Finding {
	if !OKAll(list) {
		return nil
	}
	for _, f := range list {
		if f.Name != "_dmarc."+domain {
			continue
		}
		next := map[dmarc.Policy]string{dmarc.PolicyNone: "quarantine", dmarc.PolicyQuarantine: "reject"}[policyOf(f)]
		if next == "" {
			return nil
		}
		why := fmt.Sprintf("p=%s lets others forge the domain", policyOf(f))
		if policyOf(f) == dmarc.PolicyQuarantine {
			why = "p=quarantine leaves forgeries in junk folders"
		}
		return []Finding{finding(Info, "DMARC "+domain, "%s", why).
			do("when your own mail has arrived everywhere for two weeks, change %s TXT to v=DMARC1; p=%s", f.Name, next)}
	}
	return nil
}
