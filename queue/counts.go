package queue

import "sync/atomic"

// Counts are what the attempts since the process began came to, one for each recipient of each,
// and how many attempts are under way.
type Counts struct {
	Delivered uint64
	Deferred  uint64 // to be tried again, or held
	Failed    uint64 // for good, or given up
	Running   int64  // attempts now
}

type counters struct {
	delivered, deferred, failed atomic.Uint64
	running                     atomic.Int64
}

// Counts returns the counters. Each is right by itself; together they are of about one moment.
func (q *Queue) Counts() Counts {
	c := &q.counters
	return Counts{
		Delivered: c.delivered.Load(), Deferred: c.deferred.Load(), Failed: c.failed.Load(), Running: c.running.Load(),
	}
}

// count counts where an attempt has left a recipient.
func (c *counters) count(s State) {
	switch s {
	case Delivered:
		c.delivered.Add(1)
	case Failed:
		c.failed.Add(1)
	default:
		c.deferred.Add(1)
	}
}
