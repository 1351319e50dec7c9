package mailauth

import (
	"sync"
	"time"
)

const (
	// patience is for how long mail waits for an answer of DNS. Most senders try again several
	// times within it, and give up only days later.
	patience = 4 * time.Hour
	// forgetting is after which time without a message that needs it a question is forgotten: what
	// is missing then is another outage.
	forgetting = 24 * time.Hour
	// maxOutages bounds the memory: some 2 MB.
	maxOutages = 10_000
)

// outages remembers which questions DNS does not answer. It is safe for concurrent use.
type outages struct {
	now func() time.Time
	mu  sync.Mutex
	of  map[string]outage
}

// An outage is one of a question that messages waited for.
type outage struct{ first, last time.Time }

func newOutages(now func() time.Time) *outages {
	return &outages{now: now, of: map[string]outage{}}
}

// update takes in what a message has shown. It reports whether all that the message would wait for
// has been missing for as long as anybody waits.
func (o *outages) update(v *Verdict) (overdue bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, q := range v.answered() {
		delete(o.of, q)
	}
	if v.judge() != wait && !v.Undecided() {
		return false
	}
	now := o.now()
	overdue = true
	for _, q := range v.questions() {
		out, ok := o.of[q]
		if !ok || now.Sub(out.last) > forgetting {
			out.first = now
		}
		out.last = now
		if !ok {
			o.makeRoom(now)
		}
		o.of[q] = out
		overdue = overdue && now.Sub(out.first) >= patience
	}
	return overdue
}

// makeRoom drops old outages when there are too many, and any one if that is not enough: a flood of
// made-up questions may lengthen the wait of others, no more.
func (o *outages) makeRoom(now time.Time) {
	if len(o.of) < maxOutages {
		return
	}
	for q, out := range o.of {
		if now.Sub(out.last) > forgetting {
			delete(o.of, q)
		}
	}
	for q := range o.of {
		if len(o.of) < maxOutages {
			return
		}
		delete(o.of, q)
	}
}
