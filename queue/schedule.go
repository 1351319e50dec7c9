package queue

import (
	"context"
	"runtime/debug"
	"sync"
	"time"
)

// Run makes attempts until ctx ends. Those under way then have Grace to come to their end, for
// one that is cut off after the message was sent may deliver it twice.
func (q *Queue) Run(ctx context.Context) {
	attempts, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	var running sync.WaitGroup
	defer func() {
		defer time.AfterFunc(q.opt.Grace, cut).Stop()
		running.Wait()
	}()
	var slots slots
	slots.init(q.opt.Workers, q.opt.PerGroup)
	for last := (time.Time{}); ; {
		now := q.now()
		if last.IsZero() || now.Before(last.Add(-clockNoise)) {
			running.Go(func() { q.mendTimes(ctx, now) }) // beside the work: a long queue takes a while to read
		}
		last = now
		work, next := q.store.Claim(now, slots.left(), slots.take)
		for _, w := range work {
			running.Go(func() {
				// The last of these is first: when the scheduler looks again, the slot must be
				// free and the work given back, for nothing else would make it look once more.
				defer q.poke()
				defer q.store.Done(w)
				defer slots.release(w.Group)
				q.attempt(attempts, w)
			})
		}
		if !q.wait(ctx, next) {
			return
		}
	}
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
	var ids []string
	q.store.List(func(e *Envelope) bool {
		for i := range e.Recipients {
			if mend(&e.Recipients[i].Status) {
				ids = append(ids, e.ID)
				break
			}
		}
		return ctx.Err() == nil
	})
	for _, id := range ids {
		if err := q.change(id, nil, mend); err != nil {
			q.opt.Log.Error("the clock was set back, and a new time to try cannot be recorded", "id", id, "error", err.Error())
		}
	}
}

// slots bound the attempts at once: in all, and in one group, so that a destination that hangs
// holds up nobody else.
type slots struct {
	mu       sync.Mutex
	free     int
	perGroup int
	used     map[string]int
}

func (s *slots) init(all, perGroup int) { s.free, s.perGroup, s.used = all, perGroup, map[string]int{} }

func (s *slots) left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free
}

// take takes a slot in group if there is one.
func (s *slots) take(group string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.free == 0 || s.used[group] >= s.perGroup {
		return false
	}
	s.free--
	s.used[group]++
	return true
}

func (s *slots) release(group string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free++
	if s.used[group]--; s.used[group] == 0 {
		delete(s.used, group)
	}
}

// contain keeps a panic in what concerns one message from reaching the process, and with it
// every other message. It is to be deferred.
func (q *Queue) contain(id string) {
	if p := recover(); p != nil {
		q.opt.Log.Error("panic while delivering", "id", id, "panic", p, "stack", string(debug.Stack()))
	}
}
