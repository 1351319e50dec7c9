package rights

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayd/config"
)

func TestAFileThatIsOpenIsToldOfOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "relayd.toml")
	users := filepath.Join(filepath.Dir(file), "domains/a.example/users")
	if err := errors.Join(os.MkdirAll(filepath.Dir(users), 0o750), os.WriteFile(users, nil, 0o600), os.Chmod(users, 0o604)); err != nil {
		t.Fatal(err)
	}
	conf, err := config.Parse(file, []byte("hostname = \"mx.example.org\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	conf.StateDir = t.TempDir()
	var log bytes.Buffer
	w := NewWatcher(conf, slog.New(slog.NewTextHandler(&log, nil)))
	w.Look()
	if list := w.List(); !strings.Contains(list.Error(), users) || strings.Count(log.String(), users+" ") != strings.Count(list.Error(), users+":") {
		t.Errorf("%v\n%s", list, &log)
	}
	if err := os.Chmod(users, 0o640); err != nil {
		t.Fatal(err)
	}
	w.Look()
	if list := w.List(); strings.Contains(list.Error(), users) {
		t.Errorf("%v", list)
	}
}
