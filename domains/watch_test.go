package domains

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// watched is a Store that looks when it is told to.
type watched struct {
	*host
	*Store
	seen string
}

func watch(h *host) *watched { return &watched{host: h, Store: h.open()} }

func (w *watched) look(n int) {
	for range n {
		w.seen = w.Store.look(w.seen)
	}
}

func TestChangeIsSeen(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@else.example\n")
	w := watch(h)
	changes := []struct {
		what, addr, want string
		change           func()
	}{
		{"written in place", "x@a.example", "z@else.example", func() { h.write("a.example/aliases", "x: z@else.example\n") }},
		{"replaced", "x@a.example", "q@else.example", func() {
			if err := WriteFile(h.path("a.example/aliases"), []byte("x: q@else.example\n"), 0o640); err != nil {
				t.Fatal(err)
			}
		}},
		{"a new domain", "x@b.example", "y@else.example", func() { h.write("b.example/aliases", "x: y@else.example\n") }},
		{"a domain by a link", "x@c.example", "y@else.example", func() { h.link("b.example", "c.example") }},
		{"a change behind a link", "x@c.example", "w@else.example", func() { h.write("b.example/aliases", "x: w@else.example\n") }},
		{"a domain removed", "x@b.example", "550", func() { h.remove("c.example"); h.remove("b.example") }},
	}
	for _, c := range changes {
		c.change()
		w.look(2)
		if got := leads(w.Store, c.addr); got != c.want {
			t.Errorf("%s: %s leads to %s, want %s", c.what, c.addr, got, c.want)
		}
	}
	h.write("a.example/dkim/s.pem", pem1())
	w.look(2)
	if got := selectors(w.Store, "a.example"); got != "s" {
		t.Errorf("keys: %q", got)
	}
}

// Most programs make a file empty before they write it, and somebody else may send a SIGHUP just then.
// On a machine that stands still for long in between nobody can tell; so one time of many is enough.
func TestReloadWhileAFileIsBeingWritten(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@else.example\n")
	s := h.open()
	for range 20 {
		h.write("a.example/aliases", "")
		written := make(chan struct{})
		go func() {
			defer close(written)
			time.Sleep(20 * time.Millisecond)
			h.write("a.example/aliases", "x: z@else.example\n")
		}()
		s.Reload()
		got := leads(s, "x@a.example")
		<-written
		if got == "z@else.example" {
			return
		}
	}
	t.Error("the empty file is in force each time")
}

// The file becomes empty just before it is read. A machine that stands still may read it like that now and then.
func TestFileThatBecomesEmptyWhileItIsLookedAt(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@else.example\n")
	written := make(chan struct{})
	go func() {
		defer close(written)
		for range 10 {
			time.Sleep(writeTime + 20*time.Millisecond) // the last time is long ago then
			h.write("a.example/aliases", "")
			time.Sleep(time.Millisecond)
			h.write("a.example/aliases", "x: y@else.example\n")
		}
	}()
	for empty := 0; ; {
		text, err := new(loader).readWritten(h.path("a.example/aliases"), []byte("x: y@else.example\n"))
		if err != nil {
			t.Fatal(err)
		}
		if len(text) == 0 {
			empty++
		}
		select {
		case <-written:
			if empty > 10 {
				t.Errorf("taken for empty %d times", empty)
			}
			return
		default:
		}
	}
}

// However many files are being written for ever, a load waits for all of them together.
func TestFilesThatAreWrittenForEverHoldUpNoLoad(t *testing.T) {
	h := newHost(t)
	h.write("a.example/users", "x")
	read := make(chan struct{})
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			select {
			case <-read:
				return
			case <-time.After(writeTime / 10):
				os.Chtimes(h.path("a.example/users"), time.Time{}, time.Now())
			}
		}
	})
	l := &loader{}
	for range 4 {
		if text, err := l.readWritten(h.path("a.example/users"), nil); string(text) != "x" || err != nil {
			t.Errorf("%q, %v", text, err)
		}
	}
	close(read)
	writing.Wait()
	if l.waited > maxWaited+writeTime {
		t.Errorf("it has waited %v", l.waited)
	}
}

// A file that never rests keeps changes of others out for a while, and not for ever.
func TestFileThatNeverRestsHoldsUpNobody(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@else.example\n")
	h.write("b.example/aliases", "x: y@else.example\n")
	w := watch(h)
	h.write("a.example/aliases", "x: z@else.example\n")
	for n := range maxRestless {
		h.write("b.example/aliases", strings.Repeat("# more\n", n))
		w.look(1)
	}
	if got := leads(w.Store, "x@a.example"); got != "z@else.example" {
		t.Errorf("after %d looks it leads to %q", maxRestless, got)
	}
}

func TestHalfWrittenFileIsNotApplied(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@else.example\n")
	w := watch(h)
	f, err := os.OpenFile(h.path("a.example/aliases"), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, line := range []string{"", "a: a@else.example\n", "b: b@else.example\n", "x: z@else.example\n"} {
		if _, err := f.WriteString(line); err != nil {
			t.Fatal(err)
		}
		w.look(1)
		h.wantLeads(w.Store, "x@a.example", "y@else.example")
	}
	w.look(2)
	h.wantLeads(w.Store, "x@a.example", "z@else.example")
}

func TestNothingIsLoadedWithoutAChange(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@else.example\n")
	h.write("a.example/users", "broken\n")
	w := watch(h)
	before := w.Current()
	w.look(3)
	h.write("a.example/.aliases.swp", "what an editor leaves")
	h.write("a.example/notes", "")
	w.look(3)
	if w.Current() != before {
		t.Error("files are loaded again that have not changed")
	}
}

// What could not be read because of too many open files looks the same when it can be.
func TestPassingErrorIsTriedAgain(t *testing.T) {
	h := newHost(t)
	w := watch(h)
	before := w.Current()
	l := &loader{}
	for _, err := range []error{nil, os.ErrNotExist, os.ErrPermission, errNotFile, errTooLarge} {
		if l.failed(err); l.unsure {
			t.Fatalf("%v may pass", err)
		}
	}
	if l.failed(errors.New("too many open files")); !l.unsure {
		t.Fatal("too many open files will not pass")
	}
	w.mu.Lock()
	w.applied = "" // as Reload leaves it then
	w.mu.Unlock()
	w.look(2)
	if w.Current() == before {
		t.Error("it is not tried again")
	}
}

func TestWatchEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	newHost(t).open().Watch(ctx)
}
