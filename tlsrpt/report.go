package tlsrpt

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// A Report is what one domain is told of one day. Its JSON is that of RFC 8460 section 4.4.
type Report struct {
	Organization string          `json:"organization-name"`
	Range        DateRange       `json:"date-range"`
	Contact      string          `json:"contact-info"`
	ID           string          `json:"report-id"` // the same each time the report is made
	Policies     []PolicySummary `json:"policies"`  // at least one
}

// Domain is whom the report is for.
func (r *Report) Domain() string { return r.Policies[0].Policy.Domain }

// A DateRange is a day of UTC.
type DateRange struct {
	Start time.Time `json:"start-datetime"`
	End   time.Time `json:"end-datetime"`
}

// A PolicySummary is what came of one policy.
type PolicySummary struct {
	Policy   Policy   `json:"policy"`
	Summary  Summary  `json:"summary"`
	Failures []detail `json:"failure-details,omitempty"` // not all of them where there are very many kinds
}

// Summary counts sessions.
type Summary struct {
	Successes uint64 `json:"total-successful-session-count"`
	Failures  uint64 `json:"total-failure-session-count"`
}

// Reports is what was counted on the day of UTC that at is in, one report per domain, by name. It is
// empty for a day without mail and for one that is forgotten; the error is that of the disk.
func (b *Book) Reports(at time.Time) ([]Report, error) {
	at = at.UTC()
	date := at.Format(dateFormat)
	tallies, err := b.tallies(date)
	if err != nil {
		return nil, fmt.Errorf("reading the TLS results of %s: %w", date, err)
	}
	start := time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC)
	var reports []Report
	for _, t := range tallies {
		last := len(reports) - 1
		if last < 0 || reports[last].Domain() != t.Policy.Domain {
			reports = append(reports, Report{
				Organization: b.opt.Organization, Contact: b.opt.Contact,
				Range: DateRange{start, start.AddDate(0, 0, 1).Add(-time.Second)},
				ID:    date + "!" + t.Policy.Domain + "!" + b.opt.Organization,
			})
			last++
		}
		reports[last].Policies = append(reports[last].Policies, PolicySummary{t.Policy, Summary{t.Successes, t.Failures}, t.Details})
	}
	return reports, nil
}

// tallies returns what was counted on a day, by domain and kind of policy.
func (b *Book) tallies(date string) ([]tally, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range append(slices.Clone(b.past), b.today) {
		if d.date == date {
			return d.sorted(), nil
		}
	}
	d, err := b.load(date)
	if err != nil {
		return nil, err
	}
	return d.sorted(), nil
}

// sorted returns copies that share nothing that changes.
func (d *day) sorted() []tally {
	var all []tally
	for _, key := range slices.SortedFunc(maps.Keys(d.tallies), func(a, b tallyKey) int {
		return cmp.Or(cmp.Compare(a.domain, b.domain), cmp.Compare(a.typ, b.typ))
	}) {
		t := *d.tallies[key]
		t.Details = slices.Clone(t.Details)
		all = append(all, t)
	}
	return all
}
