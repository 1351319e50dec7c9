package queue

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

const (
	idA = "AAAAAAAA"
	idB = "BBBBBBBB"
	idC = "CCCCCCCC"
)

func TestAddIsDurableBeforeItReturns(t *testing.T) {
	d, dir := newFaultyDisk(), t.TempDir()
	s := open(t, d, dir)
	var steps []string
	d.before = func(op, name string) error {
		rel, _ := filepath.Rel(dir, name)
		steps = append(steps, op+" "+rel)
		return nil
	}
	add(t, s, newEnvelope(t, idA, "a@one.test"), "body\r\n")
	want := []string{
		"open tmp/" + idA, "write tmp/" + idA, "write tmp/" + idA, "write tmp/" + idA, "write tmp/" + idA,
		"sync tmp/" + idA, "close tmp/" + idA, "rename tmp/" + idA, "open msg", "sync msg", "close msg",
	}
	if !slices.Equal(steps, want) {
		t.Errorf("steps of Add:\n%s\nwant:\n%s", strings.Join(steps, "\n"), strings.Join(want, "\n"))
	}
}

func TestAddRefuses(t *testing.T) {
	s := open(t, newFaultyDisk(), t.TempDir())
	add(t, s, newEnvelope(t, idA, "a@one.test"), "first")
	noState := newEnvelope(t, idB, "a@one.test")
	noState.Recipients[0].State = ""
	unreadable := newEnvelope(t, idB, "a@one.test")
	unreadable.Recipients[0].ReturnPath.Local = "x" // and no domain: cannot be read back
	for name, e := range map[string]*Envelope{
		"an ID that is there": newEnvelope(t, idA, "b@one.test"), "no ID": newEnvelope(t, "", "a@one.test"),
		"a path": newEnvelope(t, "../../etc/passwd", "a@one.test"), "a short ID": newEnvelope(t, "AAAAAAA", "a@one.test"),
		"no recipients": newEnvelope(t, idB), "no state": noState, "what cannot be read back": unreadable,
	} {
		if err := s.Add(e, strings.NewReader("second")); err == nil {
			t.Errorf("Add took %s", name)
		}
	}
	if err := s.Add(newEnvelope(t, idB, "a@one.test"), iotest.ErrReader(io.ErrUnexpectedEOF)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Add of a body that breaks off: %v", err)
	}
	if got := listed(open(t, newFaultyDisk(), s.dir)); !slices.Equal(got, []string{idA}) || bodyOf(t, s, idA) != "first" {
		t.Errorf("kept: %v", got)
	}
}

// faults runs f once for each operation that it makes, with that operation failing, and then for
// each with the disk dead from there on.
func faults(t *testing.T, f func(t *testing.T, d *faultyDisk, arm func()) (check func(op string, why error, dead bool))) {
	for _, why := range []error{syscall.ENOSPC, syscall.EIO, errShort{syscall.ENOSPC}, errShort{syscall.EIO}} {
		for _, dead := range []bool{false, true} {
			for n, more := 0, true; more; n++ {
				more = false
				t.Run(fmt.Sprintf("%v,dead=%v,step=%d", why, dead, n), func(t *testing.T) {
					d, at, failed := newFaultyDisk(), -1, ""
					d.before = func(op, name string) error {
						if at < 0 {
							return nil
						}
						at++
						if at-1 < n || at-1 > n && !dead {
							return nil
						}
						more = true
						if failed == "" {
							failed = op
							if filepath.Base(name) == "msg" {
								failed += " of the folder"
							}
						}
						if short, ok := why.(errShort); ok && op != "write" {
							return short.error
						}
						return why
					}
					check := f(t, d, func() { at = 0 })
					d.before = nil
					check(failed, why, dead)
				})
			}
		}
	}
}

func TestAddWhenTheDiskFails(t *testing.T) {
	faults(t, func(t *testing.T, d *faultyDisk, arm func()) func(string, error, bool) {
		s := open(t, d, t.TempDir())
		add(t, s, newEnvelope(t, idA, "a@one.test"), "one")
		arm()
		err := s.Add(newEnvelope(t, idB, "b@two.test"), strings.NewReader("two"))
		return func(op string, why error, dead bool) {
			full := isFull(why)
			want := []string{idA}
			if err == nil {
				if op != "" && op != "close of the folder" {
					t.Fatalf("Add returned nil although %s failed", op)
				}
				want = append(want, idB)
			} else if _, err := s.Body(idB); !errors.Is(err, ErrNotFound) || s.Get(idB) != nil {
				t.Error("something is kept of a message that was not taken")
			}
			if got := listed(s); !slices.Equal(got, want) {
				t.Errorf("in memory: %v, want %v", got, want)
			}
			after := open(t, newFaultyDisk(), copyDir(t, s.dir))
			// A disk that is dead cannot be cleaned up: one message too many is a duplicate.
			if got := listed(after); !slices.Equal(got, want) && !(dead && slices.Equal(got, []string{idA, idB})) {
				t.Errorf("after a restart: %v, want %v", got, want)
			}
			if got := listed(open(t, newFaultyDisk(), d.cutPower(t, s.dir))); !slices.Equal(got, want) {
				t.Errorf("after a power cut: %v, want %v", got, want)
			}
			if left, _ := os.ReadDir(s.TemporaryDir()); len(left) > 0 && !dead {
				t.Errorf("left in tmp: %v", left)
			}
			err := s.Add(newEnvelope(t, idC, "c@three.test"), strings.NewReader("three"))
			stop := op == "sync" && !full || op == "sync of the folder" || dead && op != "" && s.broken != nil
			if stopped := s.broken != nil; stopped != stop || stopped != (err != nil) {
				t.Errorf("after a failed %s (%v) the next Add returned %v", op, why, err)
			}
		}
	})
}

// TestAddWhileAnotherFails: the kernel tells of a failed sync once. Who syncs the folder next is
// told that all is well, and must not believe it.
func TestAddWhileAnotherFails(t *testing.T) {
	d := newFaultyDisk()
	s := open(t, d, t.TempDir())
	renaming, failed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	d.before = func(op, name string) (err error) {
		if op == "rename" && filepath.Base(name) == idB {
			close(renaming)
			<-failed
		}
		if op == "sync" && filepath.Base(name) == "msg" {
			once.Do(func() { err = syscall.EIO })
		}
		return err
	}
	second := make(chan error)
	go func() { second <- s.Add(newEnvelope(t, idB, "b@two.test"), strings.NewReader("two")) }()
	<-renaming
	if err := s.Add(newEnvelope(t, idA, "a@one.test"), strings.NewReader("one")); !errors.Is(err, syscall.EIO) {
		t.Errorf("the first: %v", err)
	}
	close(failed)
	if err := <-second; !errors.Is(err, syscall.EIO) || len(listed(s)) != 0 {
		t.Errorf("the second: %v, kept: %v", err, listed(s))
	}
}

func TestUpdateWhenTheDiskFails(t *testing.T) {
	faults(t, func(t *testing.T, d *faultyDisk, arm func()) func(string, error, bool) {
		s := open(t, d, t.TempDir())
		add(t, s, newEnvelope(t, idA, "a@one.test", "b@two.test"), "one")
		r := s.Get(idA).Recipients[0]
		r.LastReply = "451 " + strings.Repeat("longer than the change that follows ", 50)
		split, more := r, r
		split.Address, more.Address = addr(t, "x@one.test"), addr(t, "y@three.test")
		arm()
		err := s.Update(idA, map[int]Recipient{0: split, 2: more}, true)
		return func(op string, why error, dead bool) {
			if err == nil && op != "" && op != "close" {
				t.Errorf("Update returned nil although %s failed", op)
			}
			if e := s.Get(idA); len(e.Recipients) != 3 {
				t.Errorf("the change is not in force: %s", text(e))
			}
			atOnce := open(t, newFaultyDisk(), copyDir(t, s.dir)).Get(idA)
			if atOnce == nil || len(atOnce.Recipients) < 2 || err == nil && len(atOnce.Recipients) != 3 {
				t.Fatalf("after a restart: %s", text(atOnce))
			}
			// The next change must not land behind a torn line, nor without the one before it.
			first, last := s.Get(idA).Recipients[0], s.Get(idA).Recipients[2]
			first.LastReply, last.LastReply, last.State = "", "", Delivered
			if err := s.Update(idA, map[int]Recipient{0: first, 2: last}, true); err != nil {
				t.Fatalf("the next update: %v", err)
			}
			if info, err := os.Stat(s.path(idA)); err != nil || info.Size() != s.messages[idA].end {
				t.Errorf("something is left behind the last change: %v", err)
			}
			want := text(s.Get(idA))
			for how, dir := range map[string]string{"a restart": copyDir(t, s.dir), "a power cut": d.cutPower(t, s.dir)} {
				again := open(t, newFaultyDisk(), dir)
				if got := text(again.Get(idA)); got != want {
					t.Errorf("after %s:\n%s\nwant:\n%s", how, got, want)
				}
			}
		}
	})
}

// What is done must be forgotten even on a full disk, and what cannot be removed must not be done again.
func TestLastUpdateWhenTheDiskFails(t *testing.T) {
	faults(t, func(t *testing.T, d *faultyDisk, arm func()) func(string, error, bool) {
		s := open(t, d, t.TempDir())
		add(t, s, newEnvelope(t, idA, "a@one.test"), "one")
		r := s.Get(idA).Recipients[0]
		r.State = Delivered
		arm()
		err := s.Update(idA, map[int]Recipient{0: r}, true)
		return func(op string, _ error, dead bool) {
			if s.Get(idA) != nil {
				t.Error("it is still there")
			}
			again := listed(open(t, newFaultyDisk(), copyDir(t, s.dir)))
			if len(again) > 0 && (err == nil || !dead) {
				t.Errorf("after %s failed, Update returned %v and a restart does it again", op, err)
			}
			if err == nil && len(listed(open(t, newFaultyDisk(), d.cutPower(t, s.dir)))) > 0 {
				t.Error("after a power cut it is done again")
			}
		}
	})
}

func TestRemoveWhenTheDiskFails(t *testing.T) {
	faults(t, func(t *testing.T, d *faultyDisk, arm func()) func(string, error, bool) {
		s := open(t, d, t.TempDir())
		add(t, s, newEnvelope(t, idA, "a@one.test"), "one")
		arm()
		err := s.Remove(idA)
		return func(op string, _ error, dead bool) {
			if err == nil && len(listed(open(t, newFaultyDisk(), d.cutPower(t, s.dir)))) > 0 {
				t.Errorf("%s failed, Remove returned nil, and after a power cut the message is there", op)
			}
			if inMemory, onDisk := len(listed(s)), len(listed(open(t, newFaultyDisk(), copyDir(t, s.dir)))); inMemory != onDisk {
				t.Errorf("%s failed: %d messages in memory, %d on the disk", op, inMemory, onDisk)
			}
		}
	})
}

func TestOpenWhenTheDiskFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "q")
	first := open(t, newFaultyDisk(), dir)
	add(t, first, newEnvelope(t, idA, "a@one.test"), "one")
	faults(t, func(t *testing.T, d *faultyDisk, arm func()) func(string, error, bool) {
		here := copyDir(t, dir)
		arm()
		_, err := openFileStore(d, here, byDomain, quiet)
		return func(op string, _ error, _ bool) {
			if op == "read" && err != nil {
				t.Errorf("a file that cannot be read keeps the rest from being served: %v", err)
			}
			if strings.HasPrefix(op, "sync") && err == nil {
				t.Error("opened although a folder could not be synced")
			}
			in, _ := filepath.Glob(filepath.Join(here, "*", idA))
			if len(in) != 1 {
				t.Errorf("the message is in %v", in)
			}
		}
	})
}

func TestBody(t *testing.T) {
	s := open(t, newFaultyDisk(), t.TempDir())
	add(t, s, newEnvelope(t, idA, "a@one.test"), "one\r\n")
	for _, id := range []string{idB, "../../../etc/passwd", ""} {
		if _, err := s.Body(id); !errors.Is(err, ErrNotFound) {
			t.Errorf("Body(%q): %v", id, err)
		}
	}
	r, err := s.Body(idA)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := s.Remove(idA); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); string(b) != "one\r\n" || err != nil {
		t.Errorf("a body that is being read when the message is removed: %q, %v", b, err)
	}
	add(t, s, newEnvelope(t, idB, "a@one.test"), strings.Repeat("x", 1000))
	if err := os.Truncate(s.path(idB), 500); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Body(idB); err == nil {
		t.Error("half a body was handed out as if it were all")
	}
}

func TestListIsOldestFirst(t *testing.T) {
	s := open(t, newFaultyDisk(), t.TempDir())
	for n, id := range []string{idC, idA, idB} {
		e := newEnvelope(t, id, "a@one.test")
		e.Received = e.Received.Add(-time.Duration(n) * time.Hour)
		add(t, s, e, "x")
	}
	if got := listed(s); !slices.Equal(got, []string{idB, idA, idC}) {
		t.Errorf("listed: %v", got)
	}
	n := 0
	s.List(func(*Envelope) bool { n++; return false })
	if n != 1 {
		t.Errorf("yield was called %d times after false", n)
	}
}

func TestNotThere(t *testing.T) {
	s := open(t, newFaultyDisk(), t.TempDir())
	if err := s.Update(idA, nil, true); !errors.Is(err, ErrNotFound) {
		t.Errorf("Update: %v", err)
	}
	if err := s.Remove(idA); !errors.Is(err, ErrNotFound) {
		t.Errorf("Remove: %v", err)
	}
	add(t, s, newEnvelope(t, idA, "a@one.test"), "x")
	r := s.Get(idA).Recipients[0]
	for _, i := range []int{-1, 2} {
		if err := s.Update(idA, map[int]Recipient{i: r}, true); err == nil {
			t.Errorf("Update took recipient %d of 1", i)
		}
	}
}
