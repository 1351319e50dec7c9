package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"relayd/config"
	"relayd/problem"
)

// saved makes a relay in dir and saves it, without what is in the state folder's queue.
func saved(t *testing.T, dir string) (*os.File, Options) {
	t.Helper()
	file := dir + "/etc/relayd.toml"
	settings := fmt.Sprintf("hostname = \"mx.example.org\"\nstate_dir = %q\n", dir+"/var")
	for name, text := range map[string]string{
		file: settings, dir + "/etc/domains/example.org/users": "", dir + "/etc/domains/example.org/aliases": "*: me@gmail.example\n",
		dir + "/var/srs-secrets": "x\n", dir + "/var/queue/log": "q", dir + "/var/maildrop/m": "m",
	} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := os.Create(dir + "/var/archive")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { archive.Close() })
	if s, err := Save(archive, cfg, []string{"queue", "maildrop"}); err != nil || s.Files != 4 {
		t.Fatalf("%+v, %v", s, err)
	}
	return archive, Options{
		File: file, StateDir: dir + "/var", Now: time.Unix(1_700_000_000, 0), Warn: t.Errorf,
		Stopped: func(*config.Config) error { return nil },
	}
}

// names are those in dir and below, but for hidden ones.
func names(t *testing.T, dir string) string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() && strings.HasPrefix(e.Name(), ".") {
			return fs.SkipDir
		}
		if name != dir {
			list = append(list, strings.TrimPrefix(name, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}

func TestWhatIsSavedIsRestoredOrNothing(t *testing.T) {
	dir := t.TempDir()
	archive, opt := saved(t, dir)
	before := names(t, dir)
	_, err := Restore(archive, opt)
	if list, ok := errors.AsType[problem.List](err); !ok || len(list) != 3 {
		t.Errorf("over what is there: %v", err)
	}
	if after := names(t, dir); after != before {
		t.Errorf("there is now %s", after)
	}
	if err := errors.Join(os.Rename(dir+"/etc", dir+"/old"), os.Rename(dir+"/var", dir+"/oldvar")); err != nil {
		t.Fatal(err)
	}
	before = names(t, dir)
	running := errors.New("relayd runs")
	stopped := opt
	stopped.Stopped = func(*config.Config) error { return running }
	if _, err := Restore(archive, stopped); !errors.Is(err, running) {
		t.Errorf("while it runs: %v", err)
	}
	if after := names(t, dir); after != before {
		t.Errorf("there is now %s", after)
	}
	r, err := Restore(archive, opt)
	if err != nil || r.Files != 4 || r.Config != dir+"/etc" || r.State != dir+"/var" {
		t.Fatalf("%+v, %v", r, err)
	}
	if got := names(t, dir+"/var"); got != "srs-secrets" {
		t.Errorf("the state is %s", got)
	}
	opt.Force = true
	if r, err = Restore(archive, opt); err != nil || len(r.Aside) != 2 || !strings.Contains(r.Aside[0], ".before-restore.20231114T221320Z.") {
		t.Errorf("%+v, %v", r, err)
	}
}
