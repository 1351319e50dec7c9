package sendmail

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"relayd/reply"
)

// shut is a house whose relay is down, with these texts in its drop folder.
func shut(t *testing.T, texts ...string) (*house, *Door) {
	t.Helper()
	h := newHouse(t)
	h.open()
	h.stop()
	for _, text := range texts {
		h.leave(text)
	}
	return h, newDoor(h.opt)
}

// leave leaves a message in the drop folder.
func (h *house) leave(text string) {
	h.t.Helper()
	if answer, err := h.send(text, Request{Recipients: []string{"a"}}); err != nil || answer != Dropped {
		h.t.Fatalf("%v %v", answer, err)
	}
}

// TestTooManyOpenFilesLosesNoMail: a message that cannot be opened now was answered 250.
func TestTooManyOpenFilesLosesNoMail(t *testing.T) {
	h, d := shut(t, "hi\n")
	files, err := os.ReadDir(dropIn(h.dir))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v %v", files, err)
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := syscall.Rlimit{Cur: 0, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	failed := d.takeFile(context.Background(), files[0].Name())
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(failed, syscall.EMFILE) {
		t.Errorf("%v", failed)
	}
	h.look(d, 1, 0)
}

// TestWhatIsNoMessageGoes: links, folders and pipes, which nobody has been answered 250 for.
func TestWhatIsNoMessageGoes(t *testing.T) {
	h, d := shut(t)
	at := func(name string) string { return filepath.Join(dropIn(h.dir), name) }
	err := errors.Join(os.Symlink("/etc/passwd", at("link")), os.Mkdir(at("folder"), 0o700), syscall.Mkfifo(at("pipe"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	h.look(d, 0, 0)
}

// TestAPanicOverLocalMailEndsNothingElse: a file that made relayd end would do so at every start.
func TestAPanicOverLocalMailEndsNothingElse(t *testing.T) {
	h, d := shut(t, "poison\n", "hi\n")
	h.look(d, 1, 1)
	h.later(2 * restFor)
	h.leave("poison too\n")
	h.look(d, 1, 2)
	h.open()
	if answer, err := h.send("poison\n", Request{Recipients: []string{"a"}}); err != nil || answer.Code != 451 {
		t.Errorf("%v %v", answer, err)
	}
	h.stop()
}

// TestOneUserKeepsNoOtherWaiting: who has sent too much, or is out of order otherwise.
func TestOneUserKeepsNoOtherWaiting(t *testing.T) {
	h, _ := shut(t)
	here, other, waiting := os.Geteuid(), 1234, 3
	if here != 0 { // nobody else's files can be made then
		other, waiting = here, 0
	}
	for i, uid := range []int{other, other, here, other, here, here} {
		name := filepath.Join(dropIn(h.dir), "file"+strconv.Itoa(i))
		if err := errors.Join(os.WriteFile(name, []byte(`{"recipients":["a"],"size":4}`+"\n"+"hi\r\n"), 0o600), os.Chown(name, uid, uid)); err != nil {
			t.Fatal(err)
		}
	}
	h.opt.UserName = func(uid uint32) (string, error) {
		if uid == 1234 {
			return "", errors.New("nobody can say for now")
		}
		return "me", nil
	}
	d := newDoor(h.opt)
	h.look(d, 6-waiting, waiting)
	d.opt.UserName = func(uint32) (string, error) { return "me", nil }
	h.look(d, 6-waiting, waiting) // it rests
	h.later(restFor)
	h.look(d, 6, 0)
}

// TestAUserWhoseNameCannotBeLookedUpIsNotUnknown: the file of users may be out of reach for a moment.
func TestAUserWhoseNameCannotBeLookedUpIsNotUnknown(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{{user.UnknownUserIdError(7), 550}, {syscall.EMFILE, 451}} {
		h := newHouse(t)
		h.opt.UserName = func(uint32) (string, error) { return "", c.err }
		_, err := newDoor(h.opt).take(context.Background(), 7, &Request{}, nil)
		if got := reply.From(err).Code; got != c.code {
			t.Errorf("%v: %d, want %d", c.err, got, c.code)
		}
	}
}

// TestOneUserDoesNotFillTheDropFolder: what a user leaves over the bounds goes, and the user is told once.
// What can be taken at once is no concern of theirs.
func TestOneUserDoesNotFillTheDropFolder(t *testing.T) {
	text := []byte(`{"recipients":["a"],"size":4}` + "\n" + "hi\r\n")
	fill := func(h *house, prefix string, n int) {
		t.Helper()
		for i := range n {
			if err := os.WriteFile(filepath.Join(dropIn(h.dir), prefix+strconv.Itoa(i)), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	h, d := shut(t)
	d.mostFiles = 10
	fill(h, "a", 13)
	h.look(d, 13, 0)

	h, d = shut(t)
	d.mostFiles = 10
	fill(h, "a", 9)
	fill(h, ".unfinished", 5)
	h.fail = reply.New(452, "4.3.1", "Full")
	h.look(d, 1, 10) // one notice was sent
	h.look(d, 1, 10)
	fill(h, "b", 2)
	h.look(d, 2, 10)
	if got := h.messages()[1]; !strings.HasPrefix(got, " to me@example.test: ") || !strings.Contains(got, "552 5.2.2 More mail of yours waits than the 10000 messages and 1024 MiB") {
		t.Errorf("told: %q", got)
	}

	h, d = shut(t)
	d.mostFiles = 1
	var log strings.Builder
	d.opt.Log = slog.New(slog.NewTextHandler(&log, nil))
	for _, name := range []string{".a/x", ".b/x"} { // folders that are not empty
		if err := os.MkdirAll(filepath.Join(dropIn(h.dir), name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if h.look(d, 0, 2); log.String() != "" {
		t.Errorf("every look says %s", log.String())
	}

	h, d = shut(t)
	for _, name := range []string{".a", ".b", ".c"} {
		file := filepath.Join(dropIn(h.dir), name)
		if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, maxLeftBytes/2+1)); err != nil {
			t.Fatal(err)
		}
	}
	h.look(d, 1, 1)
	if os.Geteuid() == 0 { // another user's are counted apart
		fill(h, ".other", 1)
		file := filepath.Join(dropIn(h.dir), ".other0")
		if err := errors.Join(os.Truncate(file, maxLeftBytes+1), os.Chown(file, 1234, 1234)); err != nil {
			t.Fatal(err)
		}
		h.look(d, 1, 2)
	}
}

// TestWhatCannotBeRemovedIsTakenOnce: the drop folder became read-only when a message in it had been
// taken, and at every look it was taken once more.
func TestWhatCannotBeRemovedIsTakenOnce(t *testing.T) {
	h, d := shut(t, "hi\n")
	d.remove = func(string) error { return syscall.EROFS }
	for range 3 {
		h.look(d, 1, 1)
	}
}
