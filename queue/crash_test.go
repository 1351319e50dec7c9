package queue

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A history is every state that a message was meant to have, "" when it was not there.
type history struct {
	states []string
	acked  int // the last that was promised to survive a crash of the process
	synced int // the last that was promised to survive a power cut
}

// TestCrashAtEveryStep: whatever happens, a message is found in a state that was promised or a later one.
func TestCrashAtEveryStep(t *testing.T) {
	d, dir := newFaultyDisk(), t.TempDir()
	s := open(t, d, dir)
	all := map[string]*history{idA: {states: []string{""}}, idB: {states: []string{""}}}
	check := func(how, step, in string, floor func(*history) int) {
		again := open(t, newFaultyDisk(), in)
		for id, h := range all {
			got := text(again.Get(id))
			if !slices.Contains(h.states[floor(h):], got) {
				t.Errorf("%s before %s: %s is %q, want one of %q", how, step, id, got, h.states[floor(h):])
			}
			if got != "" && bodyOf(t, again, id) != "body of "+id {
				t.Errorf("%s before %s: body of %s is %q", how, step, id, bodyOf(t, again, id))
			}
		}
		if set, _ := os.ReadDir(filepath.Join(in, "damaged")); len(set) > 0 {
			t.Errorf("%s before %s: set aside: %v", how, step, set)
		}
	}
	d.before = func(op, name string) error {
		check("crash", op+" "+name, copyDir(t, dir), func(h *history) int { return h.acked })
		check("power cut", op+" "+name, d.cutPower(t, dir), func(h *history) int { return h.synced })
		return nil
	}
	do := func(id string, sync bool, want string, f func() error) {
		t.Helper()
		h := all[id]
		h.states = append(h.states, want)
		if err := f(); err != nil {
			t.Fatal(err)
		}
		h.acked = len(h.states) - 1
		if sync {
			h.synced = h.acked
		}
		check("crash", "the end", copyDir(t, dir), func(h *history) int { return h.acked })
		check("power cut", "the end", d.cutPower(t, dir), func(h *history) int { return h.synced })
	}
	added := func(id string, to ...string) {
		e := newEnvelope(t, id, to...)
		body := "body of " + id
		e.Size = int64(len(body))
		do(id, true, text(e), func() error { return s.Add(e, strings.NewReader(body)) })
	}
	update := func(id string, sync bool, changes map[int]Recipient) {
		e := s.Get(id)
		if err := e.change(changes); err != nil {
			t.Fatal(err)
		}
		want := text(e)
		if e.done() {
			want = ""
		}
		do(id, sync, want, func() error { return s.Update(id, changes, sync) })
	}
	added(idA, "a@one.test", "b@two.test")
	added(idB, "c@one.test")
	r := s.Get(idA).Recipients[0]
	r.Attempts = 1
	update(idA, false, map[int]Recipient{0: r})
	r.State = Delivered
	update(idA, true, map[int]Recipient{0: r})
	x := Recipient{Address: addr(t, "x@three.test"), Status: Status{State: Waiting}}
	update(idA, true, map[int]Recipient{1: x, 2: x})
	do(idB, true, "", func() error { return s.Remove(idB) })
	x.State = Failed
	update(idA, false, map[int]Recipient{1: x})
	update(idA, true, map[int]Recipient{2: x})
}

// TestTornTail cuts a message's file short everywhere behind its envelope, or has it end in other
// bytes: it is found in an earlier state, and takes further changes.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	s := open(t, newFaultyDisk(), dir)
	add(t, s, newEnvelope(t, idA, "a@one.test", "b@two.test"), "one\r\n")
	states, ends := []string{text(s.Get(idA))}, []int64{s.messages[idA].end}
	for n := range 3 {
		r := s.Get(idA).Recipients[n%2]
		r.Attempts = n + 1
		if err := s.Update(idA, map[int]Recipient{n % 2: r}, false); err != nil {
			t.Fatal(err)
		}
		states, ends = append(states, text(s.Get(idA))), append(ends, s.messages[idA].end)
	}
	whole, err := os.ReadFile(s.path(idA))
	if err != nil {
		t.Fatal(err)
	}
	for cut := ends[0]; cut <= int64(len(whole)); cut++ {
		for _, tail := range []string{"", "\x00\x00\x00", "\x00\x00\n", "{\"7\":{}}\n", "{\"-1\":{}}\n", "{\"0\":{\"state\":\"odd\"}}\n"} {
			in := copyDir(t, dir)
			path := filepath.Join(in, "msg", idA)
			if err := os.WriteFile(path, append(slices.Clone(whole[:cut]), tail...), 0o600); err != nil {
				t.Fatal(err)
			}
			want := states[0]
			for n, end := range ends {
				if end <= cut {
					want = states[n]
				}
			}
			again := open(t, newFaultyDisk(), in)
			if got := text(again.Get(idA)); got != want {
				t.Fatalf("cut at %d, then %q:\n%s\nwant:\n%s", cut, tail, got, want)
			}
			r := again.Get(idA).Recipients[0]
			r.State = Delivered
			if err := again.Update(idA, map[int]Recipient{0: r}, true); err != nil {
				t.Fatal(err)
			}
			if got, want := text(open(t, newFaultyDisk(), in).Get(idA)), text(again.Get(idA)); got != want {
				t.Fatalf("cut at %d, then %q, then a change:\n%s\nwant:\n%s", cut, tail, got, want)
			}
		}
	}
}

// TestStrangersInTheFolder: what is no message is set aside, nothing is overwritten there, and
// the rest is served.
func TestStrangersInTheFolder(t *testing.T) {
	dir := t.TempDir()
	s := open(t, newFaultyDisk(), dir)
	add(t, s, newEnvelope(t, idA, "a@one.test"), "one")
	msg := filepath.Join(dir, "msg")
	good, err := os.ReadFile(s.path(idA))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"README": "hello", "EMPTY000": "", "SHORT000": string(good[:len(good)-10]), "OTHERID0": string(good),
		"BADSIZE0": "relayd-queue 1 9223372036854775807\n" + string(good[headerSize:]),
		"NEGATIV0": "relayd-queue 1 -00000000000000001\n" + string(good[headerSize:]),
		"WRONGSZ0": strings.Replace(strings.Replace(string(good), "03\n", "02\n", 1), idA, "WRONGSZ0", 1),
		"NORCPTS0": formatHeader(0) + `{"id":"NORCPTS0","recipients":[]}` + "\n",
	} {
		if err := os.WriteFile(filepath.Join(msg, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(
		os.Mkdir(filepath.Join(msg, "FOLDER00"), 0o700), os.Symlink("/etc/passwd", filepath.Join(msg, "SYMLINK0")),
		syscall.Mkfifo(filepath.Join(msg, "FIFO0000"), 0o600), os.WriteFile(filepath.Join(dir, "damaged", "README"), []byte("before"), 0o600),
		os.MkdirAll(filepath.Join(dir, "tmp", "folder", "in", "it"), 0o700),
	); err != nil {
		t.Fatal(err)
	}
	if got := listed(open(t, newFaultyDisk(), dir)); !slices.Equal(got, []string{idA}) {
		t.Errorf("served: %v", got)
	}
	aside, err := os.ReadDir(filepath.Join(dir, "damaged"))
	if err != nil || len(aside) != 12 {
		t.Errorf("set aside: %v %v", aside, err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "damaged", "README")); string(b) != "before" {
		t.Errorf("what was set aside before is now %q", b)
	}
}

// A halfReader is a file of which nothing past good can be read.
type halfReader struct {
	io.ReaderAt
	good int64
}

func (r halfReader) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > r.good {
		return 0, syscall.EIO
	}
	return r.ReaderAt.ReadAt(b, at)
}

// TestBadSectorIsNoEnd: what cannot be read now is not taken for what was never written.
func TestBadSectorIsNoEnd(t *testing.T) {
	s := open(t, newFaultyDisk(), t.TempDir())
	add(t, s, newEnvelope(t, idA, "a@one.test"), "one")
	for range 100 {
		if err := s.Update(idA, map[int]Recipient{0: s.Get(idA).Recipients[0]}, false); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(s.path(idA))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	length := s.messages[idA].end
	if e, _, err := readMessage(halfReader{f, length / 2}, length); !errors.Is(err, syscall.EIO) {
		t.Errorf("read: %s, %v", text(e), err)
	}
}
