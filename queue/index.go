package queue

import (
	"container/heap"
	"time"
)

// An index orders work by when it is due. An item is the work of one message for one group.
// Items whose group has no slot free are put aside, per group, so that ten thousand messages for
// a destination that hangs are looked at once and not at every turn. Items are never searched
// for: a change of a message makes its older items void, and they are dropped when they come up.
type index struct {
	group   func(*Recipient) string
	heap    itemHeap
	blocked map[string][]item // due, waiting for a slot; in order
	ready   map[string]bool   // groups of blocked in which a slot may have become free
}

type item struct {
	entry *entry
	gen   int
	group string
	due   time.Time
}

func (it item) void() bool { return it.gen != it.entry.gen || it.entry.out[it.group] }

func (x *index) init(group func(*Recipient) string) {
	x.group, x.blocked, x.ready = group, map[string][]item{}, map[string]bool{}
}

// schedule enters all work of m that is not claimed, in place of what was entered before.
func (x *index) schedule(m *entry) {
	m.gen++
	due := map[string]time.Time{}
	for i := range m.env.Recipients {
		r := &m.env.Recipients[i]
		if r.State != Waiting {
			continue
		}
		g := x.group(r)
		if t, ok := due[g]; !ok || r.Next.Before(t) {
			due[g] = r.Next
		}
	}
	for g, t := range due {
		if !m.out[g] {
			heap.Push(&x.heap, item{m, m.gen, g, t})
		}
	}
}

// claim takes up to max due items for which free finds a slot, and tells when the next is due.
func (x *index) claim(now time.Time, max int, free func(string) bool) (claimed []item, next time.Time) {
	if max == 0 {
		return nil, time.Time{} // a slot that becomes free makes the next claim
	}
	ready := x.ready
	x.ready = map[string]bool{}
	for g := range ready {
		claimed = x.claimBlocked(claimed, g, max, free)
	}
	for len(x.heap) > 0 {
		it := x.heap[0]
		switch {
		case it.void():
			heap.Pop(&x.heap)
			continue
		case it.due.After(now):
			return claimed, it.due
		case len(claimed) >= max:
			return claimed, time.Time{}
		}
		heap.Pop(&x.heap)
		if len(x.blocked[it.group]) > 0 || !free(it.group) {
			x.blocked[it.group] = append(x.blocked[it.group], it)
			continue
		}
		it.entry.out[it.group] = true
		claimed = append(claimed, it)
	}
	return claimed, time.Time{}
}

func (x *index) claimBlocked(claimed []item, group string, max int, free func(string) bool) []item {
	list := x.blocked[group]
	for len(list) > 0 {
		it := list[0]
		if it.void() {
			list = list[1:]
			continue
		}
		if len(claimed) >= max || !free(group) {
			break
		}
		list = list[1:]
		it.entry.out[group] = true
		claimed = append(claimed, it)
	}
	if len(list) == 0 {
		delete(x.blocked, group)
	} else {
		x.blocked[group] = list
		if len(claimed) >= max {
			x.ready[group] = true
		}
	}
	return claimed
}

// unblock has the next claim look at what waits for a slot in group.
func (x *index) unblock(group string) {
	if len(x.blocked[group]) > 0 {
		x.ready[group] = true
	}
}

// due lists the recipients of e in group that are due.
func (x *index) due(e *Envelope, group string, now time.Time) []int {
	var indexes []int
	for i := range e.Recipients {
		r := &e.Recipients[i]
		if r.State == Waiting && !r.Next.After(now) && x.group(r) == group {
			indexes = append(indexes, i)
		}
	}
	return indexes
}

type itemHeap []item

func (h itemHeap) Len() int           { return len(h) }
func (h itemHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h itemHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *itemHeap) Push(x any)        { *h = append(*h, x.(item)) }
func (h *itemHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	*h = old[:len(old)-1]
	return it
}
