package queue

import (
	"context"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// Run makes attempts until ctx ends. Those under way then have Grace to come to their end, for
// one that is cut off after the message was sent may deliver it twice. Who does not heed that he
// was cut off is left behind a few seconds later, and a line in the log names the message: after a
// restart it is tried again.
func (q *Queue) Run(ctx context.Context) {
	attempts, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	crew := crew{on: map[*Work]bool{}}
	for last := (time.Time{}); ; {
		now := q.now()
		if last.IsZero() || now.Before(last.Add(-clockNoise)) {
			crew.all.Go(func() { q.mendTimes(ctx, now) }) // beside the work: a long queue takes a while to read
		}
		last = now
		work, next := q.store.Claim(now, q.slots.look(), q.slots.take)
		for _, w := range work {
			crew.work(w, func() {
				// The last of these is first: when the scheduler looks again, the slot must be
				// free and the work given back, for nothing else would make it look once more.
				defer q.poke()
				defer q.store.Done(w)
				defer q.slots.release(w.Group)
				if q.belongs(ctx, w) {
					q.attempt(attempts, w)
				}
			})
		}
		if !q.wait(ctx, next) {
			break
		}
	}
	if !crew.wait(q.opt.Grace) {
		cut()
		crew.wait(cutGrace)
	}
	for _, w := range crew.left() {
		q.opt.Log.Error("an attempt does not end: it is left behind", "id", w.Envelope.ID, "group", w.Group)
	}
}

// cutGrace is how long attempts that were cut off have to note what became of them.
const cutGrace = 5 * time.Second

// belongs reports whether an attempt is to be made: w is in the group where it should be, as far
// as that can be found out, and there is time to begin. Otherwise the work is given back as if
// nothing had been, and comes up in its right group.
func (q *Queue) belongs(ctx context.Context, w *Work) (yes bool) {
	defer func() {
		if p := recover(); p != nil {
			q.logPanic(w.Envelope.ID, p)
			yes = true // so that it counts: it must not come up again at once, for ever
		}
	}()
	for _, i := range w.Indexes {
		r := &w.Envelope.Recipients[i]
		q.deliver.Learn(ctx, r)
		if q.deliver.Group(r) != w.Group {
			return false
		}
	}
	return ctx.Err() == nil
}

// A crew is who works for one Run, and on what.
type crew struct {
	all sync.WaitGroup
	mu  sync.Mutex
	on  map[*Work]bool
}

// work does f, which works on w, in a goroutine.
func (c *crew) work(w *Work, f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.on[w] = true
	c.all.Go(func() {
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.on, w)
		}()
		f()
	})
}

// wait waits until all have finished, or not much longer than d, and reports which.
func (c *crew) wait(d time.Duration) bool {
	finished := make(chan struct{})
	go func() {
		c.all.Wait()
		close(finished)
	}()
	late := time.NewTimer(d)
	defer late.Stop()
	select {
	case <-finished:
		return true
	case <-late.C:
		return false
	}
}

// left are the works that are not finished.
func (c *crew) left() []*Work {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.on))
}

const (
	// longestWait bounds a sleep, so that a clock that was set is noticed.
	longestWait = time.Minute
	// clockNoise is how far the clock may go back without anything being looked through for it.
	clockNoise = time.Minute
)

// wait returns true when there may be work again, false when ctx has ended.
func (q *Queue) wait(ctx context.Context, next time.Time) bool {
	var due <-chan time.Time
	if !next.IsZero() {
		t := time.NewTimer(min(next.Sub(q.now()), longestWait))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-q.wake:
	case <-due:
	}
	return ctx.Err() == nil
}

// mendTimes makes due what is further in the future than any retry can be. The clock has been
// set back since its time was reckoned; to wait until it is there again may take years.
func (q *Queue) mendTimes(ctx context.Context, now time.Time) {
	implausible := now.Add(longest(lastRetry) + clockNoise)
	mend := func(s *Status) bool {
		late := s.State == Waiting && s.Next.After(implausible)
		if late {
			s.Next = now
		}
		return late
	}
	for _, id := range q.store.DueAfter(implausible) {
		if ctx.Err() != nil {
			return
		}
		if err := q.change(id, nil, mend); err != nil {
			q.opt.Log.Error("the clock was set back, and a new time to try cannot be recorded", "id", id, "error", err.Error())
		}
	}
}

// contain keeps a panic in what concerns one message from reaching the process, and with it
// every other message. It is to be deferred.
func (q *Queue) contain(id string) {
	if p := recover(); p != nil {
		q.logPanic(id, p)
	}
}

func (q *Queue) logPanic(id string, p any) {
	q.opt.Log.Error("panic while delivering", "id", id, "panic", p, "stack", string(debug.Stack()))
}
