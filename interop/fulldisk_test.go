//go:build interop

package interop

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relayd/internal/sink"
)

// soon is how long what is meant to take a second, or five, may take on a slow machine.
const soon = 10 * time.Second

// TestFullDisk: the disk of the queue fills up, with bytes or with files, and is emptied again.
// New mail is refused for now, with 452 4.3.1 and with nothing else; what was accepted stays and is
// delivered; and mail is taken again when there is room.
func TestFullDisk(t *testing.T) {
	for name, test := range map[string]struct {
		files int
		fill  func(dir string, n int) error // takes some more room; ENOSPC when there is none left
	}{
		"bytes": {0, fillBytes},
		"files": {600, fillFiles},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFullDisk(t, test.files)
			f.acceptSome()
			f.fillUp(test.fill)
			f.deliverAll()
			f.makeRoom()
			f.finish()
		})
	}
}

// A fullDisk is a relayd whose state folder is on a small disk.
type fullDisk struct {
	*testing.T
	s    *site
	snk  *sink.Sink
	d    *daemon
	c    *dialog
	open atomic.Bool // the sink takes mail
	disk string
	junk string // folder of what fills the disk
	sent map[string][]byte
	n    int
}

// newFullDisk starts relayd on 64 MiB of ext4, or of memory where there are no loop devices, with so
// many files at most, if that is not 0.
func newFullDisk(t *testing.T, files int) *fullDisk {
	f := &fullDisk{T: t, sent: map[string][]byte{}}
	f.s, f.snk = newWorld(t, sink.Options{Reply: func(stage, _ string, _ int) string {
		if stage == "mail" && !f.open.Load() {
			return "451 4.3.0 not now"
		}
		return ""
	}}, queueFirst)
	f.disk = f.s.path("state")
	f.junk = filepath.Join(f.disk, "junk")
	f.mount(files)
	t.Cleanup(func() {
		if out, err := exec.Command(peer(t, "umount"), f.disk).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	if err := os.Mkdir(f.junk, 0o700); err != nil {
		t.Fatal(err)
	}
	f.d = f.s.start()
	f.dial()
	return f
}

func (f *fullDisk) mount(files int) {
	f.Helper()
	image := f.s.path("image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 64<<20), os.Mkdir(f.disk, 0o700)); err != nil {
		f.Fatal(err)
	}
	mkfs, inMemory := []string{"-q", "-F", "-m", "0"}, "size=64m"
	if files > 0 {
		mkfs, inMemory = append(mkfs, "-N", fmt.Sprint(files)), fmt.Sprintf("%s,nr_inodes=%d", inMemory, files)
	}
	mustRun(f, exec.Command(peer(f, "mkfs.ext4"), append(mkfs, image)...))
	if out, err := exec.Command(peer(f, "mount"), "-o", "loop", image, f.disk).CombinedOutput(); err != nil {
		f.Logf("no loop device (%s): in memory instead", bytes.TrimSpace(out))
		mustRun(f, exec.Command(peer(f, "mount"), "-t", "tmpfs", "-o", inMemory, "tmpfs", f.disk))
	}
}

func (f *fullDisk) dial() {
	f.c = dial(f, f.d.address("smtp"))
	f.c.say("EHLO client.test", "250 ")
}

// offer offers a new message, which is taken or refused for lack of room, and reports which.
func (f *fullDisk) offer(size int) (taken bool) {
	f.Helper()
	f.n++
	text := strangersMail(fmt.Sprintf("message-%d", f.n), size)
	switch got := offer(f.c, text); {
	case strings.HasPrefix(got, "250 "):
		f.sent[queuedID(f, got)] = text
		return true
	case !strings.HasPrefix(got, "452 4.3.1 "):
		f.Errorf("message %d of %d octets is answered %s", f.n, size, got)
	}
	return false
}

const (
	small = 2000
	large = 200_000 // gets a file of its own
)

// acceptSome takes mail while there is room: none of it may be refused.
func (f *fullDisk) acceptSome() {
	f.Helper()
	for i := range 40 {
		if !f.offer([]int{small, large}[i%2]) {
			f.Fatal("refused while there is room")
		}
	}
}

// fillBytes makes a file of a MiB.
func fillBytes(dir string, n int) error {
	return os.WriteFile(filepath.Join(dir, fmt.Sprint(n)), make([]byte, 1<<20), 0o600)
}

// fillFiles makes ten empty files.
func fillFiles(dir string, n int) error {
	for i := range 10 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(n, i)), nil, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// fillUp fills the disk to the end while mail comes in.
func (f *fullDisk) fillUp(fill func(dir string, n int) error) {
	f.Helper()
	firstRefusal := ""
	for n := 0; ; n++ {
		err := fill(f.junk, n)
		if errors.Is(err, syscall.ENOSPC) {
			break
		}
		if err != nil || n > 1000 {
			f.Fatalf("filling the disk: %v", err)
		}
		if taken := f.offer(small); !taken && firstRefusal == "" {
			firstRefusal = f.room()
		}
	}
	full := time.Now()
	f.until("new mail is refused", full, func() bool { return !f.offer(large) })
	took := time.Since(full)
	for i := range 20 {
		if f.offer([]int{small, large}[i%2]) {
			f.Error("accepted on a full disk, after a refusal")
		}
	}
	if firstRefusal == "" {
		firstRefusal = f.room()
	}
	f.Logf("%d messages accepted; the first was refused with %s left; %.3f s after the disk was full a large one was", len(f.sent), firstRefusal, took.Seconds())
	f.list(len(f.sent))
}

// room is what is left on the disk.
func (f *fullDisk) room() string {
	f.Helper()
	var st syscall.Statfs_t
	if err := syscall.Statfs(f.disk, &st); err != nil {
		f.Fatal(err)
	}
	return fmt.Sprintf("%.1f of %.1f MiB and %d of %d files", float64(st.Bavail)*float64(st.Bsize)/(1<<20), float64(st.Blocks)*float64(st.Bsize)/(1<<20), st.Ffree, st.Files)
}

// until waits for what must be soon after an event.
func (f *fullDisk) until(what string, since time.Time, done func() bool) {
	f.Helper()
	for !done() {
		if time.Since(since) > soon {
			f.Fatalf("not within %v: %s", soon, what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// list asks for the queue, in which so many messages must be.
func (f *fullDisk) list(want int) {
	f.Helper()
	out := f.s.mustUtil("queue-list", "--json")
	if got := strings.Count(out, `"sender"`); got != want {
		f.Errorf("queue-list shows %d messages, want %d", got, want)
	}
}

// deliverAll has the whole queue delivered while the disk is full.
func (f *fullDisk) deliverAll() {
	f.Helper()
	if n := f.snk.Count(); n != 0 {
		f.Errorf("%d messages were delivered to a server that refuses them", n)
	}
	f.open.Store(true)
	f.s.retryAll()
	arrived(f, f.snk, len(f.sent))
	f.empty()
}

// empty waits until the queue is.
func (f *fullDisk) empty() {
	f.Helper()
	waitFor(f, "the queue is empty", patience, func() bool { return !strings.Contains(f.s.mustUtil("queue-list", "--json"), `"sender"`) })
}

// makeRoom takes away what fills the disk; mail of both sizes is then taken again.
func (f *fullDisk) makeRoom() {
	f.Helper()
	if err := os.RemoveAll(f.junk); err != nil {
		f.Fatal(err)
	}
	emptied := time.Now()
	f.until("mail is accepted again", emptied, func() bool { return f.offer(large) })
	f.Logf("accepted again %.3f s after there was room", time.Since(emptied).Seconds())
	if !f.offer(small) {
		f.Error("a small message is refused after a large one was taken")
	}
}

// finish starts relayd again, and counts.
func (f *fullDisk) finish() {
	f.Helper()
	f.empty()
	f.c.close()
	f.d.kill()
	f.d = f.s.start()
	f.s.retryAll() // should anything be back
	f.empty()
	copies := map[string]int{}
	for _, m := range f.snk.Messages() {
		id := ""
		for sentID, text := range f.sent {
			if bytes.HasSuffix(m.Data, text) {
				id = sentID
			}
		}
		if id == "" {
			f.Errorf("a message that was refused, or not whole, was delivered:\n%.500s", m.Data)
		}
		copies[id]++
	}
	lost, duplicates := 0, 0
	for id := range f.sent {
		if copies[id] == 0 {
			f.Errorf("%s was accepted and is lost", id)
			lost++
		}
		duplicates += max(0, copies[id]-1)
	}
	for _, dir := range []string{"large", "tmp", "damaged"} {
		left, err := os.ReadDir(filepath.Join(f.disk, "queue", dir))
		if err != nil || len(left) > 0 {
			f.Errorf("left in %s: %v %v", dir, left, err)
		}
	}
	f.Logf("offered %d, accepted %d, lost %d, duplicates %d", f.n, len(f.sent), lost, duplicates)
}
