package setup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestTheQueueIsCountedWhereItIs: root counts what waits before it removes, in a folder of the relay's user.
func TestTheQueueIsCountedWhereItIs(t *testing.T) {
	for _, link := range []string{"queue", "queue/log", "queue/tmp"} {
		dir := t.TempDir()
		err := errors.Join(os.MkdirAll(filepath.Join(dir, "state", filepath.Dir(link)), 0o700), os.Mkdir(dir+"/outside", 0o700),
			os.WriteFile(dir+"/outside/precious", nil, 0o600), os.Symlink(dir+"/outside", filepath.Join(dir, "state", link)))
		if err != nil {
			t.Fatal(err)
		}
		if n, _, err := queued(context.Background(), dir+"/state"); err == nil {
			t.Errorf("%s: %d messages were counted behind a link", link, n)
		}
		there, err := os.ReadDir(dir + "/outside")
		if err != nil || len(there) != 1 || there[0].Name() != "precious" {
			t.Errorf("%s: %v, %v", link, there, err)
		}
		if text, err := os.ReadFile(dir + "/outside/precious"); err != nil || len(text) > 0 {
			t.Errorf("%s: %q, %v", link, text, err)
		}
	}
	dir := t.TempDir()
	if err := os.MkdirAll(dir+"/queue/log", 0o700); err != nil {
		t.Fatal(err)
	}
	if n, running, err := queued(context.Background(), dir); n != 0 || running || err != nil {
		t.Errorf("%d, %v, %v", n, running, err)
	}
	if n, _, err := queued(context.Background(), dir+"/none"); n != 0 || err != nil {
		t.Errorf("without a state folder: %d, %v", n, err)
	}
}
