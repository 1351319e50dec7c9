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
	name    func(*Recipient) string // of the group of a recipient
	groups  map[string]*lane        // that slots name
	ready   itemHeap
	blocked map[*lane]bool // those that have put something aside
}

// A lane is what waits for one group.
type lane struct {
	name    string
	slots   int // that name it; when there is none it is forgotten
	waiting int // of them
	aside   itemHeap
}

// A slot is what the index must know of a recipient, in little memory: envelopes are on disk.
type slot struct {
	group   *lane
	next    int64 // when it is due, in Unix nanoseconds
	waiting bool
	taken   bool // its work is claimed
}

func (r *slot) ready() bool { return r.waiting && !r.taken }

type item struct {
	entry *entry
	group *lane
	due   int64 // Unix nanoseconds
	at    int32 // where in the heap that it is in
	in    heapName
}

type heapName byte

const (
	nowhere heapName = iota
	inReady
	inAside // of its group
)

func (x *index) init(name func(*Recipient) string) {
	x.name, x.groups, x.blocked = name, map[string]*lane{}, map[*lane]bool{}
}

// fill notes the recipients of m as they are now, with none due before notBefore, and brings its
// items in line.
func (x *index) fill(m *entry, e *Envelope, notBefore time.Time) {
	x.note(m, e, notBefore)
	x.schedule(m)
}

// note is fill without the items.
func (x *index) note(m *entry, e *Envelope, notBefore time.Time) {
	if n := len(e.Recipients) - len(m.slots); n > 0 {
		m.slots = append(slices.Clip(m.slots), make([]slot, n)...)
	}
	for i := range e.Recipients {
		r, sl := &e.Recipients[i], &m.slots[i]
		next := r.Next
		if next.Before(notBefore) {
			next = notBefore
		}
		x.assign(sl, x.name(r))
		sl.next = nanoseconds(next)
		sl.wait(r.Scheduled())
	}
}

// wait notes whether the recipient waits.
func (r *slot) wait(waiting bool) {
	if waiting && !r.waiting {
		r.group.waiting++
	} else if !waiting && r.waiting {
		r.group.waiting--
	}
	r.waiting = waiting
}

// assign puts a slot into the group of that name.
func (x *index) assign(sl *slot, name string) {
	if sl.group != nil && sl.group.name == name {
		return
	}
	waiting := sl.waiting
	x.resign(sl)
	g := x.groups[name]
	if g == nil {
		g = &lane{name: strings.Clone(name)}
		x.groups[g.name] = g
	}
	g.slots++
	sl.group = g
	sl.wait(waiting)
}

// resign takes a slot out of its group.
func (x *index) resign(sl *slot) {
	if g := sl.group; g != nil {
		sl.wait(false)
		if g.slots--; g.slots == 0 {
			delete(x.groups, g.name)
		}
		sl.group = nil
	}
}

// nanoseconds is t as a number. The zero time, and whatever is out of range, is long ago.
func nanoseconds(t time.Time) int64 {
	if t.Year() < 1970 || t.Year() > 2200 {
		return 0
	}
	return t.UnixNano()
}

// schedule brings the items of m in line with its recipients. It must follow every change of
// them, and of what is taken.
func (x *index) schedule(m *entry) {
	for i := range m.slots {
		if sl := &m.slots[i]; sl.ready() && m.find(sl.group) == nil {
			m.add(sl.group)
		}
	}
	if m.more != nil {
		*m.more = slices.DeleteFunc(*m.more, func(it *item) bool { return !x.place(it) })
	}
	if m.first.group != nil && !x.place(&m.first) {
		m.first.group = nil
	}
}

// place puts an item where it belongs among those that are ready. It returns false, and the item
// is nowhere, if nothing of it waits.
func (x *index) place(it *item) bool {
	due, waits := int64(0), false
	for i := range it.entry.slots {
		if sl := &it.entry.slots[i]; sl.group == it.group && sl.ready() && (!waits || sl.next < due) {
			due, waits = sl.next, true
		}
	}
	if waits && it.in != nowhere && it.due == due {
		return true
	}
	x.leave(it)
	if waits {
		it.due = due
		x.ready.push(it, inReady)
	}
	return waits
}

// find returns m's item for g, nil if there is none.
func (m *entry) find(g *lane) *item {
	for it := range m.items {
		if it.group == g {
			return it
		}
	}
	return nil
}

// items are the items of m: most messages have one.
func (m *entry) items(yield func(*item) bool) {
	if m.first.group != nil && !yield(&m.first) || m.more == nil {
		return
	}
	for _, it := range *m.more {
		if !yield(it) {
			return
		}
	}
}

func (m *entry) add(g *lane) {
	if m.first.group == nil {
		m.first = item{entry: m, group: g}
		return
	}
	if m.more == nil {
		m.more = new([]*item)
	}
	*m.more = append(*m.more, &item{entry: m, group: g})
}

// taken reports whether work of m is claimed.
func (m *entry) taken() bool {
	return slices.ContainsFunc(m.slots, func(sl slot) bool { return sl.taken })
}

// forget takes all of m out.
func (x *index) forget(m *entry) {
	for it := range m.items {
		x.leave(it)
	}
	m.first.group, m.more = nil, nil
	for i := range m.slots {
		x.resign(&m.slots[i])
	}
}

// leave takes it out of the heap that it is in.
func (x *index) leave(it *item) {
	switch it.in {
	case inReady:
		heap.Remove(&x.ready, int(it.at))
	case inAside:
		g := it.group
		heap.Remove(&g.aside, int(it.at))
		if len(g.aside) == 0 {
			delete(x.blocked, g)
		}
	}
}

// block puts it aside.
func (x *index) block(it *item) {
	it.group.aside.push(it, inAside)
	x.blocked[it.group] = true
}

// nominate brings the first of what is put aside for g back among all.
func (x *index) nominate(g *lane) {
	if len(g.aside) > 0 {
		it := g.aside[0]
		x.leave(it)
		x.ready.push(it, inReady)
	}
}

// claim takes up to limit due items for which free finds a slot, and tells when the next is due.
func (x *index) claim(now time.Time, limit int, free func(group string, waiting int) bool) (claimed []claim, next time.Time) {
	if limit <= 0 {
		return nil, time.Time{} // a slot that becomes free makes the next claim
	}
	for g := range x.blocked {
		x.nominate(g)
	}
	refused := map[*lane]bool{}
	for len(x.ready) > 0 {
		it := x.ready[0]
		if it.due > now.UnixNano() {
			return claimed, time.Unix(0, it.due)
		}
		if len(claimed) >= limit {
			break
		}
		g := it.group
		x.leave(it)
		if refused[g] || !free(g.name, g.waiting) {
			refused[g] = true
			x.block(it)
			continue
		}
		claimed = append(claimed, x.take(it, now))
		x.nominate(g)
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
	c := claim{entry: it.entry, group: it.group.name}
	for i := range c.entry.slots {
		if sl := &c.entry.slots[i]; sl.group == it.group && sl.ready() && sl.next <= now.UnixNano() {
			sl.taken = true
			c.indexes = append(c.indexes, i)
		}
	}
	x.schedule(c.entry)
	return c
}

// giveBack undoes take. A group that is known by another name since is named anew.
func (x *index) giveBack(m *entry, w *Work) {
	for _, i := range w.Indexes {
		if i >= len(m.slots) {
			continue // m was brought back to how it came
		}
		sl := &m.slots[i]
		sl.taken = false
		if sl.group.name == w.Group && i < len(w.Envelope.Recipients) {
			x.assign(sl, x.name(&w.Envelope.Recipients[i]))
		}
	}
	x.schedule(m)
}

// postpone gives a claim back, due not before then.
func (x *index) postpone(c claim, then time.Time) {
	for _, i := range c.indexes {
		sl := &c.entry.slots[i]
		sl.taken, sl.next = false, nanoseconds(then)
	}
	x.schedule(c.entry)
}

// An itemHeap is a container/heap by due time whose items know where they are.
type itemHeap []*item

func (h itemHeap) Len() int           { return len(h) }
func (h itemHeap) Less(i, j int) bool { return h[i].due < h[j].due }
func (h itemHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = int32(i), int32(j)
}

func (h *itemHeap) push(it *item, name heapName) {
	it.in = name
	heap.Push(h, it)
}

func (h *itemHeap) Push(x any) {
	it := x.(*item)
	it.at = int32(len(*h))
	*h = append(*h, it)
}

func (h *itemHeap) Pop() any {
	old := *h
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	it.in = nowhere
	return it
}
