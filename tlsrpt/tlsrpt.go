// Package tlsrpt counts how connections to mail exchangers fared with TLS, for the daily reports that
// recipient domains can ask for. It promises:
//
//   - Counts are kept by day, policy domain and kind of policy; a day is one of UTC. What was counted
//     survives an orderly end; a crash or power cut loses at most the last FlushEvery.
//   - Memory and disk are bounded, whatever domains publish: by maxDomains a day and maxDetails kinds
//     of failures for each, and by keepDays. What goes past that is left out, never waited for.
//   - Adding costs no disk access, and a disk that fails costs nothing but the counts.
//
// Reports says what a day came to, in the form in which it would go to the domains. relayd sends none:
// the counts are kept, and end with keepDays.
//
// Source: RFC 8460.
package tlsrpt

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// FlushEvery is how often Run writes to disk.
	FlushEvery = 5 * time.Minute
	// keepDays is for how many days, today among them, counts are kept: a report is due the day after.
	keepDays = 8
	// maxDomains bounds the policies of a day, which have some 500 bytes each as a rule.
	maxDomains = 10_000
	// maxDetails bounds the different failures that are told apart under one policy.
	maxDetails = 50
	// maxLines and maxText bound what is quoted of a policy, in lines and in bytes of each.
	maxLines = 100
	maxText  = 300
)

// A Type is a kind of policy under its name in reports (RFC 8460 section 4.2).
type Type string

const (
	TLSA     Type = "tlsa"            // DANE
	STS      Type = "sts"             // MTA-STS
	NoPolicy Type = "no-policy-found" // TLS where it is offered
)

// Failures that belong to no policy (RFC 8460 section 4.3.1). Those of policies have their names in
// the packages mtasts and dane.
const (
	NotSupported     = "starttls-not-supported"
	HostMismatch     = "certificate-host-mismatch"
	Expired          = "certificate-expired"
	NotTrusted       = "certificate-not-trusted"
	ValidationFailed = "validation-failure" // also whatever has no name of its own
)

// A Policy is what a domain demands of those who send mail to it.
type Policy struct {
	Type    Type     `json:"policy-type"`
	Strings []string `json:"policy-string,omitempty"` // its text, by lines; or the TLSA records
	Domain  string   `json:"policy-domain"`           // of the recipients, in A-labels
	MX      []string `json:"mx-host,omitempty"`       // the patterns of an MTA-STS policy
}

// A Session is one connection to a mail exchanger, or the lack of one because of a policy.
type Session struct {
	Policy  Policy
	Failure string     // "" when TLS was as the policy demands, else a name of RFC 8460 section 4.3
	Host    string     // the mail exchanger; "" when it did not come to one
	To      netip.Addr // its address
	From    netip.Addr // ours
	Reason  string     // what happened, for a person
}

// Options are a Book's. Dir and Write go together.
type Options struct {
	Organization string // who reports
	Contact      string // an address for questions about reports
	// Dir is a folder for counts and nothing else. It is made if need be; "" keeps nothing.
	Dir string
	// Write replaces a file in Dir in one step. A file that is new is for nobody else to read.
	Write func(name string, data []byte) error
	// Now is the clock that tells the day; default time.Now.
	Now func() time.Time
	Log *slog.Logger // of what cannot be read or written; nil for nobody
}

// A Book counts. Make one with Open and share it: it is safe for concurrent use.
type Book struct {
	opt Options

	writing sync.Mutex // held while a file is replaced; taken before mu

	mu    sync.Mutex // guards the rest
	today *day
	past  []*day // that were not written to their end
}

// A day is what was counted on one.
type day struct {
	date    string // as dateFormat has it
	tallies map[tallyKey]*tally
	dirty   bool // there is more than on disk
}

type tallyKey struct {
	domain string
	typ    Type
}

// A tally is what was counted under one policy. Where that changed during the day, it is the last.
type tally struct {
	Policy    Policy   `json:"policy"`
	Successes uint64   `json:"successes"`
	Failures  uint64   `json:"failures"` // all of them
	Details   []detail `json:"details,omitempty"`
}

// A detail is one kind of failure, as it stands in a report (RFC 8460 section 4.4).
type detail struct {
	Result string     `json:"result-type"`
	From   netip.Addr `json:"sending-mta-ip,omitzero"`
	Host   string     `json:"receiving-mx-hostname,omitempty"`
	To     netip.Addr `json:"receiving-ip,omitzero"`
	Count  uint64     `json:"failed-session-count"`
	Reason string     `json:"failure-reason-code,omitempty"` // of the first one
}

const dateFormat = time.DateOnly

// Add counts a session under today.
func (b *Book) Add(s Session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if date := b.date(); b.today.date != date {
		if b.today.dirty {
			b.past = append(b.past, b.today)
			b.past = b.past[max(0, len(b.past)-keepDays):]
		}
		b.today = newDay(date)
	}
	b.today.add(s)
}

func newDay(date string) *day { return &day{date: date, tallies: map[tallyKey]*tally{}} }

func (d *day) add(s Session) {
	key := tallyKey{s.Policy.Domain, s.Policy.Type}
	t := d.tallies[key]
	if t == nil {
		if len(d.tallies) >= maxDomains {
			return
		}
		t = &tally{}
		d.tallies[key] = t
	}
	d.dirty = true
	t.Policy = s.Policy
	t.Policy.Strings, t.Policy.MX = brief(s.Policy.Strings), brief(s.Policy.MX)
	if s.Failure == "" {
		t.Successes++
		return
	}
	t.Failures++
	t.add(detail{Result: s.Failure, From: s.From, Host: s.Host, To: s.To, Count: 1, Reason: cut(s.Reason)})
}

// add counts a failure among those that are alike.
func (t *tally) add(d detail) {
	i := slices.IndexFunc(t.Details, func(o detail) bool {
		return o.Result == d.Result && o.From == d.From && o.Host == d.Host && o.To == d.To
	})
	switch {
	case i >= 0:
		t.Details[i].Count++
	case len(t.Details) < maxDetails:
		t.Details = append(t.Details, d)
	}
}

// brief is what is quoted of a text.
func brief(lines []string) []string {
	short := slices.Clone(lines[:min(len(lines), maxLines)])
	for i := range short {
		short[i] = cut(short[i])
	}
	return short
}

func cut(s string) string {
	if len(s) > maxText {
		return s[:maxText]
	}
	return s
}

func (b *Book) date() string { return b.opt.Now().UTC().Format(dateFormat) }
