package queue

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func openWithin(t *testing.T, state string) (*LogStore, error) {
	t.Helper()
	root, err := os.OpenRoot(state)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return OpenStore(StoreOptions{Dir: filepath.Join(state, "queue"), FS: Within(root, state), Group: byDomain, Log: quiet})
}

// TestWithinServesAQueueAsItIs: messages in the log and in files of their own come and go, and both file
// systems see the same.
func TestWithinServesAQueueAsItIs(t *testing.T) {
	state := t.TempDir()
	large, small := NewID(time.Now()), NewID(time.Now())
	within, err := openWithin(t, state)
	if err != nil {
		t.Fatal(err)
	}
	if err := within.Add(newEnvelope(t, large, "a@one.test"), strings.NewReader(strings.Repeat("0123456789abcde\n", 1<<17))); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(within.Add(newEnvelope(t, small, "b@two.test"), strings.NewReader("x\r\n")), within.Close()); err != nil {
		t.Fatal(err)
	}
	plain, err := OpenStore(StoreOptions{Dir: filepath.Join(state, "queue"), Group: byDomain, Log: quiet})
	if err != nil || plain.Stats().Messages != 2 {
		t.Fatalf("%v", err)
	}
	if err := plain.Close(); err != nil {
		t.Fatal(err)
	}
	if within, err = openWithin(t, state); err != nil || within.Stats().Messages != 2 {
		t.Fatalf("%v", err)
	}
	if err := errors.Join(within.Remove(large), within.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestWithinFollowsNoLinkOut: whoever may write to the folder has root change nothing elsewhere.
func TestWithinFollowsNoLinkOut(t *testing.T) {
	for _, name := range []string{"queue", "queue/log", "queue/tmp", "queue/large", "queue/damaged", "queue/log/0000000001.log"} {
		dir := t.TempDir()
		state, outside := filepath.Join(dir, "state"), filepath.Join(dir, "outside")
		target := outside
		if strings.HasSuffix(name, ".log") {
			target = filepath.Join(outside, "file")
		}
		err := errors.Join(os.MkdirAll(filepath.Join(state, filepath.Dir(name)), 0o700), os.Mkdir(outside, 0o700),
			os.WriteFile(filepath.Join(outside, "file"), []byte("x"), 0o600), os.Symlink(target, filepath.Join(state, name)))
		if err != nil {
			t.Fatal(err)
		}
		s, err := openWithin(t, state)
		if err == nil {
			t.Errorf("%s: it is opened", name)
			s.Close()
		}
		files, _ := os.ReadDir(outside)
		if text, err := os.ReadFile(filepath.Join(outside, "file")); len(files) != 1 || string(text) != "x" || err != nil {
			t.Errorf("%s: %v, %q, %v", name, files, text, err)
		}
	}
}
