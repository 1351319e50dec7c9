package queue

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A naive model of what is due: every recipient, looked at one by one.
type model struct {
	t     *rapid.T
	s     *LogStore
	now   time.Time
	taken map[string]map[int]bool // by ID
	out   []*Work
	used  map[string]int // slots by group
	limit int            // slots in a group
	ids   int
}

// due is when the work of each message and group that is free is due, which of its recipients are
// due now, and when the first work will be that is not due now and would have a slot.
func (m *model) due() (due map[string]time.Time, indexes map[string][]int, next time.Time) {
	due, indexes = map[string]time.Time{}, map[string][]int{}
	m.s.Search("", func(e *Envelope) bool {
		for i, r := range e.Recipients {
			if !r.Scheduled() || m.taken[e.ID][i] {
				continue
			}
			key := e.ID + " " + byDomain(&r)
			if at, ok := due[key]; !ok || r.Next.Before(at) {
				due[key] = r.Next
			}
			if !r.Next.After(m.now) {
				indexes[key] = append(indexes[key], i)
			}
		}
		return true
	})
	for key, at := range due {
		if at.After(m.now) {
			delete(due, key)
			if m.used[key[9:]] < m.limit && (next.IsZero() || at.Before(next)) {
				next = at
			}
		}
	}
	return due, indexes, next
}

func (m *model) recipient() Recipient {
	group := rapid.SampledFrom([]string{"one.test", "two.test", "three.test"}).Draw(m.t, "group")
	state := rapid.SampledFrom([]State{Waiting, Waiting, Waiting, Held, Delivered}).Draw(m.t, "state")
	r := Recipient{Status: Status{State: state, Next: start.Add(time.Duration(rapid.IntRange(0, 100).Draw(m.t, "due")) * time.Minute)}}
	r.Address.Local, r.Address.Domain = "x", group
	return r
}

func (m *model) pick() *Envelope {
	ids := listed(m.s)
	if len(ids) == 0 {
		return nil
	}
	return m.s.Get(rapid.SampledFrom(ids).Draw(m.t, "id"))
}

func (m *model) add(t *rapid.T) {
	m.ids++
	e := &Envelope{ID: fmt.Sprintf("M%07d", m.ids), Received: start}
	for range rapid.IntRange(1, 4).Draw(t, "recipients") {
		e.Recipients = append(e.Recipients, m.recipient())
	}
	e.Recipients[0].State = Waiting
	if err := m.s.Add(e, strings.NewReader("x")); err != nil {
		t.Fatal(err)
	}
	m.taken[e.ID] = map[int]bool{}
}

func (m *model) update(t *rapid.T) {
	if e := m.pick(); e != nil {
		i := rapid.IntRange(0, len(e.Recipients)).Draw(t, "index")
		if err := m.s.Update(e.ID, map[int]Recipient{i: m.recipient()}, false); err != nil {
			t.Fatal(err)
		}
	}
}

func (m *model) remove(t *rapid.T) {
	if e := m.pick(); e != nil {
		if err := m.s.Remove(e.ID); err != nil {
			t.Fatal(err)
		}
	}
}

func (m *model) done(t *rapid.T) {
	if len(m.out) == 0 {
		return
	}
	n := rapid.IntRange(0, len(m.out)-1).Draw(t, "work")
	w := m.out[n]
	m.out = slices.Delete(m.out, n, n+1)
	m.used[w.Group]--
	for _, i := range w.Indexes {
		delete(m.taken[w.Envelope.ID], i)
	}
	m.s.Done(w)
}

// tick moves the clock, backwards as well.
func (m *model) tick(t *rapid.T) {
	m.now = start.Add(time.Duration(rapid.IntRange(0, 110).Draw(t, "now")) * time.Minute)
}

func (m *model) claim(t *rapid.T) {
	due, indexes, _ := m.due()
	limit := rapid.IntRange(0, 5).Draw(t, "limit")
	asked := 0
	work, next := m.s.Claim(m.now, limit, func(g string, _ int) bool {
		asked++
		if m.used[g] >= m.limit {
			return false
		}
		m.used[g]++
		return true
	})
	if len(work) > limit || asked > len(work)+3 {
		t.Fatalf("%d claimed of at most %d, %d times asked", len(work), limit, asked)
	}
	last := time.Time{}
	for _, w := range work {
		key := w.Envelope.ID + " " + w.Group
		if !slices.Equal(w.Indexes, indexes[key]) || len(w.Indexes) == 0 {
			t.Fatalf("%s: claimed %v, due were %v", key, w.Indexes, indexes[key])
		}
		if due[key].Before(last) {
			t.Fatalf("%s was due before what was claimed before it", key)
		}
		last = due[key]
		delete(due, key)
		for _, i := range w.Indexes {
			m.taken[w.Envelope.ID][i] = true
		}
	}
	m.out = append(m.out, work...)
	_, _, first := m.due()
	for key, at := range due {
		group := key[9:]
		if len(work) < limit && m.used[group] < m.limit {
			t.Fatalf("%s was due, had a slot, and was passed over", key)
		}
		for _, w := range work {
			if was := m.earliest(w); at.Before(was) && (w.Group == group || m.used[group] < m.limit) {
				t.Fatalf("%s was due at %v, before %s at %v", key, at, w.Group, was)
			}
		}
	}
	// The next is at first, or before it for a group that has no slot; that does no harm.
	if len(work) < limit && !first.IsZero() && (next.IsZero() || next.After(first)) || !next.IsZero() && !next.After(m.now) {
		t.Fatalf("next is %v, want %v", next, first)
	}
}

func (m *model) earliest(w *Work) time.Time {
	var at time.Time
	for _, i := range w.Indexes {
		if n := w.Envelope.Recipients[i].Next; at.IsZero() || n.Before(at) {
			at = n
		}
	}
	return at
}

func TestIndexIsLikeItsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := open(t, newMemFS(), "q")
		m := &model{t: rt, s: s, now: start, taken: map[string]map[int]bool{}, used: map[string]int{}, limit: rapid.IntRange(1, 3).Draw(rt, "slots")}
		rt.Repeat(map[string]func(*rapid.T){
			"add": m.add, "update": m.update, "remove": m.remove, "claim": m.claim, "claim again": m.claim, "done": m.done, "tick": m.tick,
			"": m.consistent,
		})
	})
}

// consistent: every item is where it says that it is, and only of messages that are there.
func (m *model) consistent(t *rapid.T) {
	x := &m.s.index
	heaps := map[heapName][]itemHeap{inReady: {x.ready}}
	slots, waiting := 0, 0
	for name, g := range x.groups {
		if g.name != name || g.slots == 0 {
			t.Fatalf("group %s is %q, of %d slots", name, g.name, g.slots)
		}
		slots += g.slots
		waiting += g.waiting
		if (len(g.aside) > 0) != x.blocked[g] {
			t.Fatalf("%d items of %s are put aside, blocked: %v", len(g.aside), name, x.blocked[g])
		}
		heaps[inAside] = append(heaps[inAside], g.aside)
	}
	items := 0
	for in, list := range heaps {
		for _, h := range list {
			for at, it := range h {
				items++
				if it.in != in || int(it.at) != at || m.s.messages[it.entry.id] != it.entry || it.entry.find(it.group) != it {
					t.Fatalf("item of %s at %d is lost", it.entry.id, at)
				}
			}
		}
	}
	for _, e := range m.s.messages {
		slots -= len(e.slots)
		for _, sl := range e.slots {
			if sl.waiting {
				waiting--
			}
		}
		for range e.items {
			items--
		}
	}
	if items != 0 || slots != 0 || waiting != 0 {
		t.Fatalf("%d more items in heaps than messages have, %d more slots in groups, %d of them waiting", items, slots, waiting)
	}
}
