package queue

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func always(string, int) bool { return true }

// claimed are IDs and groups of work.
func claimed(work []*Work) (list []string) {
	for _, w := range work {
		list = append(list, w.Envelope.ID+" "+w.Group)
	}
	return list
}

func addDue(t *testing.T, s *LogStore, id string, after time.Duration, to ...string) {
	t.Helper()
	e := newEnvelope(t, id, to...)
	for i := range e.Recipients {
		e.Recipients[i].Next = start.Add(after)
	}
	add(t, s, e, "x")
}

func TestClaimIsByDueTime(t *testing.T) {
	s := open(t, newMemFS(), t.TempDir())
	addDue(t, s, idB, 2*time.Minute, "b@one.test")
	addDue(t, s, idA, time.Minute, "a@one.test", "a@two.test")
	addDue(t, s, idC, time.Hour, "c@one.test")
	if work, next := s.Claim(start, 10, always); len(work) != 0 || !next.Equal(start.Add(time.Minute)) {
		t.Errorf("before all: %v, next %v", claimed(work), next)
	}
	work, next := s.Claim(start.Add(2*time.Minute), 10, always)
	got := claimed(work)
	slices.Sort(got[:2]) // due at the same time
	if !slices.Equal(got, []string{idA + " one.test", idA + " two.test", idB + " one.test"}) || !next.Equal(start.Add(time.Hour)) {
		t.Errorf("claimed %v, next %v", got, next)
	}
	if work, _ := s.Claim(start.Add(2*time.Minute), 10, always); len(work) != 0 {
		t.Errorf("claimed twice: %v", claimed(work))
	}
	if work, next := s.Claim(start.Add(2*time.Hour), 0, always); len(work) != 0 || !next.IsZero() {
		t.Errorf("without a slot: %v, next %v", claimed(work), next)
	}
}

func TestBlockedGroupComesBack(t *testing.T) {
	s := open(t, newMemFS(), t.TempDir())
	for n := range 100 {
		addDue(t, s, fmt.Sprintf("SICK%04d", n), time.Duration(n)*time.Second, "a@sick.test")
	}
	addDue(t, s, idA, time.Hour, "a@well.test")
	now, asked, slots := start.Add(2*time.Hour), 0, 1
	free := func(group string, _ int) bool {
		asked++
		if group != "sick.test" {
			return true
		}
		slots--
		return slots >= 0
	}
	work, next := s.Claim(now, 10, free)
	if got := claimed(work); !slices.Equal(got, []string{"SICK0000 sick.test", idA + " well.test"}) || !next.IsZero() {
		t.Fatalf("claimed %v, next %v", got, next)
	}
	for n := 1; n < 90; n++ {
		asked, slots = 0, 0
		if work, _ := s.Claim(now, 10, free); len(work) != 0 || asked > 1 {
			t.Fatalf("without a slot %v was claimed, and the group asked for %d times", claimed(work), asked)
		}
		asked, slots = 0, 1
		work, _ := s.Claim(now, 10, free)
		if got := claimed(work); !slices.Equal(got, []string{fmt.Sprintf("SICK%04d sick.test", n)}) || asked > 2 {
			t.Fatalf("with a slot: %v, asked %d times", got, asked)
		}
	}
	slots = 3
	work, _ = s.Claim(now, 10, free)
	if got := claimed(work); !slices.Equal(got, []string{"SICK0090 sick.test", "SICK0091 sick.test", "SICK0092 sick.test"}) {
		t.Errorf("with three slots: %v", got)
	}
}

// TestRecipientWhoseGroupChanges: while work is taken its recipients are in no other, even if the name
// of the group that they belong to has changed meanwhile.
func TestRecipientWhoseGroupChanges(t *testing.T) {
	group := "before"
	s, err := OpenStore(StoreOptions{Dir: "q", FS: newMemFS(), Group: func(*Recipient) string { return group }, Log: quiet, segmentSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	addDue(t, s, idA, 0, "a@one.test")
	work, _ := s.Claim(start, 10, always)
	if len(work) != 1 || work[0].Group != "before" || !slices.Equal(work[0].Indexes, []int{0}) {
		t.Fatalf("claimed %v", claimed(work))
	}
	group = "after"
	r := s.Get(idA).Recipients[0]
	if err := s.Update(idA, map[int]Recipient{0: r}, false); err != nil {
		t.Fatal(err)
	}
	if again, _ := s.Claim(start, 10, always); len(again) != 0 {
		t.Errorf("taken twice: %v", claimed(again))
	}
	s.Done(work[0])
	if again, _ := s.Claim(start, 10, always); !slices.Equal(claimed(again), []string{idA + " after"}) {
		t.Errorf("after Done: %v", claimed(again))
	}
}

func TestIndexHoldsNothingThatIsGone(t *testing.T) {
	s := open(t, newMemFS(), t.TempDir())
	addDue(t, s, idA, time.Hour, "a@one.test", "b@two.test", "c@three.test")
	for n := range 1000 {
		r := s.Get(idA).Recipients[n%3]
		r.Next = start.Add(time.Duration(n) * time.Minute)
		if err := s.Update(idA, map[int]Recipient{n % 3: r}, false); err != nil {
			t.Fatal(err)
		}
	}
	s.Claim(start.Add(time.Hour), 10, func(string, int) bool { return false })
	if err := s.Remove(idA); err != nil {
		t.Fatal(err)
	}
	if len(s.index.ready) != 0 || len(s.index.blocked) != 0 || len(s.index.groups) != 0 {
		t.Errorf("%d items, %d blocked groups and %d groups are left", len(s.index.ready), len(s.index.blocked), len(s.index.groups))
	}
}
