package queue

import (
	"container/heap"
	"slices"
	"strings"
	"time"
)

// An index orders work by when it is due. An item is the work of one message for one group; it
// is there once, in the heap of all, or put aside with its group. Items that are due while their
// group has no slot free are put aside, so that ten thousand messages for a destination that
// hangs are looked at once, and at later turns only the first of them.
type index struct {
	group   func(*Recipient) string
	names   map[string]string // of groups, each once: a million messages go to few destinations
	heap    itemHeap
	blocked map[string]*itemHeap // by group; none of them empty
}

// A slot is what the index must know of a recipient, in little memory: envelopes are on disk.
type slot struct {
	group   string
	next    int64 // when it is due, in Unix nanoseconds
	waiting bool
}

type item struct {
	entry   *entry
	group   string
	indexes []int32   // recipients of entry that are waiting and not taken
	due     int64     // Unix nanoseconds
	soonest int64     // what due is to become
	heap    *itemHeap // that it is in; nil: none
	at      int       // where in heap
}

func (x *index) init(group func(*Recipient) string) {
	x.group, x.names, x.blocked = group, map[string]string{}, map[string]*itemHeap{}
}

// fill notes the recipients of m as they are now, with none due before notBefore, and brings its
// items in line.
func (x *index) fill(m *entry, e *Envelope, notBefore time.Time) {
	if len(m.slots) != len(e.Recipients) {
		m.slots = make([]slot, len(e.Recipients))
	}
	for i := range e.Recipients {
		r := &e.Recipients[i]
		next := r.Next
		if next.Before(notBefore) {
			next = notBefore
		}
		m.slots[i] = slot{group: x.intern(x.group(r)), next: nanoseconds(next), waiting: r.State == Waiting}
	}
	x.schedule(m)
}

// nanoseconds is t as a number. The zero time, and whatever is out of range, is long ago.
func nanoseconds(t time.Time) int64 {
	if t.Year() < 1970 || t.Year() > 2200 {
		return 0
	}
	return t.UnixNano()
}

// maxNames bounds the strings that are kept for their sameness.
const maxNames = 100_000

func (x *index) intern(group string) string {
	if g, ok := x.names[group]; ok {
		return g
	}
	if len(x.names) >= maxNames {
		clear(x.names)
	}
	group = strings.Clone(group)
	x.names[group] = group
	return group
}

// schedule brings the items of m in line with its recipients. It must follow every change of
// them, and of what is taken.
func (x *index) schedule(m *entry) {
	for _, it := range m.items {
		it.indexes = it.indexes[:0]
	}
	for i := range m.slots {
		r := &m.slots[i]
		if !r.waiting || m.out[i] {
			continue
		}
		it := m.item(r.group)
		if len(it.indexes) == 0 || r.next < it.soonest {
			it.soonest = r.next
		}
		it.indexes = append(it.indexes, int32(i))
	}
	m.items = slices.DeleteFunc(m.items, func(it *item) bool {
		if len(it.indexes) == 0 {
			x.leave(it)
			return true
		}
		if it.heap == nil || it.due != it.soonest {
			x.leave(it)
			it.due = it.soonest
			heap.Push(&x.heap, it)
		}
		return false
	})
}

// item is m's item for group, a new one where there is none.
func (m *entry) item(group string) *item {
	for _, it := range m.items {
		if it.group == group {
			return it
		}
	}
	it := &item{entry: m, group: group}
	m.items = append(m.items, it)
	return it
}

// forget takes all of m's items out.
func (x *index) forget(m *entry) {
	for _, it := range m.items {
		x.leave(it)
	}
	m.items = nil
}

// leave takes it out of the heap that it is in.
func (x *index) leave(it *item) {
	h := it.heap
	if h == nil {
		return
	}
	heap.Remove(h, it.at)
	if h != &x.heap && len(*h) == 0 {
		delete(x.blocked, it.group)
	}
}

// block puts it aside.
func (x *index) block(it *item) {
	h := x.blocked[it.group]
	if h == nil {
		h = new(itemHeap)
		x.blocked[it.group] = h
	}
	heap.Push(h, it)
}

// nominate brings the first of what is put aside for group back among all.
func (x *index) nominate(group string) {
	if h := x.blocked[group]; h != nil {
		it := (*h)[0]
		x.leave(it)
		heap.Push(&x.heap, it)
	}
}

// claim takes up to limit due items for which free finds a slot, and tells when the next is due.
func (x *index) claim(now time.Time, limit int, free func(string) bool) (claimed []claim, next time.Time) {
	if limit <= 0 {
		return nil, time.Time{} // a slot that becomes free makes the next claim
	}
	for group := range x.blocked {
		x.nominate(group)
	}
	refused := map[string]bool{}
	for len(x.heap) > 0 {
		it := x.heap[0]
		if it.due > now.UnixNano() {
			return claimed, time.Unix(0, it.due)
		}
		if len(claimed) >= limit {
			break
		}
		x.leave(it)
		if refused[it.group] || !free(it.group) {
			refused[it.group] = true
			x.block(it)
			continue
		}
		claimed = append(claimed, x.take(it, now))
		x.nominate(it.group)
	}
	return claimed, time.Time{}
}

// A claim is what was taken of an item.
type claim struct {
	entry   *entry
	group   string
	indexes []int
}

// take takes the recipients of it that are due. The others stay, as an item that is due later.
func (x *index) take(it *item, now time.Time) claim {
	c := claim{entry: it.entry, group: it.group}
	if c.entry.out == nil {
		c.entry.out = map[int]bool{}
	}
	for _, i := range it.indexes {
		if c.entry.slots[i].next <= now.UnixNano() {
			c.indexes = append(c.indexes, int(i))
			c.entry.out[int(i)] = true
		}
	}
	x.schedule(c.entry)
	return c
}

// giveBack undoes take.
func (x *index) giveBack(m *entry, indexes []int) {
	for _, i := range indexes {
		delete(m.out, i)
	}
	if len(m.out) == 0 {
		m.out = nil
	}
	x.schedule(m)
}

// An itemHeap is a container/heap by due time whose items know where they are.
type itemHeap []*item

func (h itemHeap) Len() int           { return len(h) }
func (h itemHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h itemHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

func (h *itemHeap) Push(x any) {
	it := x.(*item)
	it.heap, it.at = h, len(*h)
	*h = append(*h, it)
}

func (h *itemHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	it.heap = nil
	return it
}
