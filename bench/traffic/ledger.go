// Package traffic is mail for measuring relays: sessions that send as real clients do, a destination
// that takes it, and a ledger in between that knows each message by its number. It is made to cost
// little, for it shares the machine with what it measures: bodies are made beforehand, the destination
// keeps nothing, and nobody waits for a lock.
package traffic

import (
	"slices"
	"sync/atomic"
	"time"
)

// A Ledger has what became of each message of one run. Its methods are safe for concurrent use, but
// Judge is for when the sessions have ended.
type Ledger struct {
	run     uint32 // tells messages of other runs apart
	begun   time.Time
	next    atomic.Int64
	entries []entry
	open    atomic.Int64 // recipients accepted for whom nothing has arrived yet; below 0 while answers are under way

	bodies, signed, damaged, strange, refused atomic.Int64
	last                                      atomic.Int64 // when the latest one arrived, in ns since the beginning
}

// An entry is one message. Times are in nanoseconds since the run began.
type entry struct {
	sent     atomic.Int64
	arrived  atomic.Int64
	want     atomic.Int32 // recipients, once the message was accepted
	got      atomic.Int32 // recipients that it arrived for
	refused  atomic.Bool  // by the destination
	accepted atomic.Bool
}

// NewLedger makes one for up to limit messages.
func NewLedger(run uint32, limit int) *Ledger {
	return &Ledger{run: run, begun: time.Now(), entries: make([]entry, limit)}
}

// begin numbers a message that is about to be sent; !ok says that the ledger is full.
func (l *Ledger) begin() (id int, ok bool) {
	id = int(l.next.Add(1)) - 1
	if id >= len(l.entries) {
		return 0, false
	}
	l.entries[id].sent.Store(int64(time.Since(l.begun)))
	return id, true
}

// accept notes that the relay has taken a message for n recipients.
func (l *Ledger) accept(id, n int) {
	e := &l.entries[id]
	e.want.Store(int32(n))
	e.accepted.Store(true)
	l.open.Add(int64(n))
}

// arrive notes a message at the destination.
func (l *Ledger) arrive(id, rcpts int, whole, signed bool) {
	now := int64(time.Since(l.begun))
	e := &l.entries[id]
	e.arrived.Store(now)
	e.got.Add(int32(rcpts))
	l.open.Add(-int64(rcpts))
	l.bodies.Add(1)
	l.last.Store(now)
	if signed {
		l.signed.Add(1)
	}
	if !whole {
		l.damaged.Add(1)
	}
}

// refuse notes that the destination did not want it, which is no loss.
func (l *Ledger) refuse(id, rcpts int) {
	if l.entries[id].refused.CompareAndSwap(false, true) {
		l.refused.Add(1)
	}
	l.open.Add(-int64(rcpts))
}

// Open counts the recipients that something has still to arrive for.
func (l *Ledger) Open() int { return int(l.open.Load()) }

// A Judgement is what became of the messages of one run.
type Judgement struct {
	Accepted, Arrived int // messages; one has arrived when all of its recipients have it
	Lost, Duplicate   int // recipients
	Bodies            int // transactions at the destination
	Signed            int // bodies with a DKIM signature
	Damaged           int // bodies of another size than was sent
	Refused           int // by the destination, as it was told to
	Strange           int // arrivals that are none of this run
	Latencies         []time.Duration
	Last              time.Duration // from the beginning to the latest arrival
}

// Judge reads the ledger. Latencies are from MAIL to the latest arrival, in order.
func (l *Ledger) Judge() Judgement {
	j := Judgement{Bodies: int(l.bodies.Load()), Signed: int(l.signed.Load()), Damaged: int(l.damaged.Load()), Refused: int(l.refused.Load()), Strange: int(l.strange.Load()), Last: time.Duration(l.last.Load())}
	for i := range min(int(l.next.Load()), len(l.entries)) {
		e := &l.entries[i]
		want, got := int(e.want.Load()), int(e.got.Load())
		if e.accepted.Load() {
			j.Accepted++
		}
		switch {
		case e.refused.Load() || got == 0 && want == 0:
		case !e.accepted.Load(): // it arrived, though the answer never came
		case got < want:
			j.Lost += want - got
		default:
			j.Arrived++
			j.Duplicate += got - want
			j.Latencies = append(j.Latencies, time.Duration(e.arrived.Load()-e.sent.Load()))
		}
	}
	slices.Sort(j.Latencies)
	return j
}

// Percentile is that of sorted times: 0.5 is the median. It is 0 for none.
func Percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(len(sorted)-1, int(p*float64(len(sorted))))]
}
