package queue

import (
	"context"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"relayd/tasks"
)

// Run makes attempts until ctx ends. Those under way then have Grace to come to their end, for
// one that is cut off after the message was sent may deliver it twice. Who does not heed that he
// was cut off is left behind a few seconds later, and a line in the log names the message: after a
// restart it is tried again. Run is called once.
func (q *Queue) Run(ctx context.Context) {
	defer q.cut()
	for last := (time.Time{}); ; {
		now := q.now()
		if last.IsZero() || now.Before(last.Add(-clockNoise)) {
			q.crew.all.Go(func() { q.mendTimes(ctx, now) }) // beside the work: a long queue takes a while to read
		}
		last = now
		work, next := q.store.Claim(now, q.slots.look(), q.slots.takeWaiting)
		q.slots.serveRest()
		for _, w := range work {
			q.crew.work(w, func() {
				// The last of these is first: when the scheduler looks again, the slot must be
				// free and the work given back, for nothing else would make it look once more.
				defer q.poke()
				defer q.store.Done(w)
				defer q.slots.release(w.Group)
				if q.belongs(ctx, w) {
					q.attempt(q.attempts, w)
				}
			})
		}
		if !q.wait(ctx, q.slots.wakeUp(next)) {
			break
		}
	}
	q.crew.close()
	if !q.crew.wait(q.opt.Grace) {
		q.cut()
		q.crew.wait(cutGrace)
	}
	for _, w := range q.crew.left() {
		q.opt.Log.Error("an attempt does not end: it is left behind", "id", w.Envelope.ID, "group", w.Group)
	}
}

// cutGrace is how long attempts that were cut off have to note what became of them.
const cutGrace = 5 * time.Second

// belongs reports whether an attempt is to be made: w is in the group where it should be, as far
// as that can be found out, and there is time to begin. Otherwise the work is given back as if
// nothing had been, and comes up in its right group.
func (q *Queue) belongs(ctx context.Context, w *Work) bool {
	for _, i := range w.Indexes {
		r := &w.Envelope.Recipients[i]
		// A panic counts as an attempt: the work must not come up again at once, for ever.
		if name, ok := q.learn(ctx, w.Envelope.ID, r); ok && name != w.Group {
			return false
		}
	}
	return ctx.Err() == nil
}

// learn returns the group of a recipient, as far as it can be found out. It returns false after a
// panic.
func (q *Queue) learn(ctx context.Context, id string, r *Recipient) (group string, ok bool) {
	defer q.contain(id)
	q.deliver.Learn(ctx, r)
	return q.deliver.Group(r), true
}

// A crew is who makes attempts, and on what.
type crew struct {
	all    sync.WaitGroup
	mu     sync.Mutex // guards the rest
	on     map[*Work]bool
	closed bool
}

// work does f, which works on w, in a goroutine. It returns false, and does nothing, once the crew
// is closed.
func (c *crew) work(w *Work, f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.on[w] = true
	c.all.Go(func() {
		tasks.RoomyStack()
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			delete(c.on, w)
		}()
		f()
	})
	return true
}

// close has the crew begin nothing more.
func (c *crew) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
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
		late := s.Scheduled() && s.Next.After(implausible)
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
