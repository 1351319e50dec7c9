package domains

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// in returns what is in a folder, names with their texts.
func in(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil && !e.IsDir() {
			text = []byte(err.Error())
		}
		files[e.Name()] = string(text)
	}
	return files
}

func wantOnly(t *testing.T, dir, name, text string) {
	t.Helper()
	if got := in(t, dir); len(got) != 1 || got[name] != text {
		t.Errorf("%s has %q, want %s: %q", dir, got, name, text)
	}
}

func TestWriteFileKeepsOwnerAndMode(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "users")
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = 12345, 23456
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	check := func(mode fs.FileMode, gid int) {
		t.Helper()
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		st := info.Sys().(*syscall.Stat_t)
		if info.Mode() != mode || int(st.Uid) != uid || int(st.Gid) != gid {
			t.Errorf("%v %d:%d, want %v %d:%d", info.Mode(), st.Uid, st.Gid, mode, uid, gid)
		}
	}
	if err := WriteFile(name, []byte("1"), 0o640); err != nil {
		t.Fatal(err)
	}
	check(0o640, gid)
	if os.Geteuid() == 0 {
		gid++
	}
	if err := errors.Join(os.Chown(name, uid, gid), os.Chmod(name, 0o604)); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(name, []byte("2"), 0o640); err != nil {
		t.Fatal(err)
	}
	check(0o604, gid)
	wantOnly(t, dir, "users", "2")
}

func TestWriteFileIgnoresTheUmask(t *testing.T) {
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	name := filepath.Join(t.TempDir(), "users")
	if err := WriteFile(name, nil, 0o640); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(name); err != nil || info.Mode() != 0o640 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestLinksAreFollowed(t *testing.T) {
	for _, exists := range []bool{true, false} {
		for name, write := range map[string]func(string) error{
			"WriteFile": func(name string) error { return WriteFile(name, []byte("new"), 0o640) },
			"Edit": func(name string) error {
				return Edit(name, 0o640, func([]byte) ([]byte, error) { return []byte("new"), nil })
			},
		} {
			t.Run(fmt.Sprintf("%s of one that exists: %v", name, exists), func(t *testing.T) {
				dir := t.TempDir()
				for _, sub := range []string{"here", "real/below", "other"} {
					if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
						t.Fatal(err)
					}
				}
				if exists {
					if err := os.WriteFile(dir+"/real/users", []byte("old"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				// users → step → below/../users, where below is itself a link to another place.
				err := errors.Join(os.Symlink("step", dir+"/here/users"), os.Symlink("folder/../users", dir+"/here/step"),
					os.Symlink(dir+"/real/below", dir+"/here/folder"))
				if err != nil {
					t.Fatal(err)
				}
				if err := write(dir + "/here/users"); err != nil {
					t.Fatal(err)
				}
				if got := in(t, dir+"/real"); got["users"] != "new" || len(got) != 2 {
					t.Errorf("real: %q", got)
				}
				if got := in(t, dir+"/here"); len(got) != 3 {
					t.Errorf("here: %q", got)
				}
				if target, err := os.Readlink(dir + "/here/users"); target != "step" {
					t.Errorf("the link leads to %q, %v", target, err)
				}
			})
		}
	}
}

func TestLinksInACircle(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.Symlink("b", dir+"/a"), os.Symlink("a", dir+"/b")); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(dir+"/a", nil, 0o640); !errors.Is(err, syscall.ELOOP) {
		t.Error(err)
	}
}

func TestErrorsLeaveTheOldFile(t *testing.T) {
	refused := errors.New("refused")
	dir := t.TempDir()
	name := filepath.Join(dir, "users")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Edit(name, 0o640, func([]byte) ([]byte, error) { return []byte("new"), refused }); err != refused {
		t.Error(err)
	}
	wantOnly(t, dir, "users", "old")
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if err := fill(full, []byte("x"), 0o600, &syscall.Stat_t{}); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a full disk: %v", err)
	}

	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := Edit(name, 0o640, func([]byte) ([]byte, error) { return nil, refused }); err != refused || len(in(t, dir)) > 0 {
		t.Errorf("%v, %q", err, in(t, dir))
	}
	if err := os.MkdirAll(name+"/x", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(name, nil, 0o640); err == nil {
		t.Error("a folder was replaced")
	}
	if err := Edit(name, 0o640, func(b []byte) ([]byte, error) { return b, nil }); err == nil {
		t.Error("a folder was edited")
	}
	wantOnly(t, dir, "users", "")
	if err := WriteFile(filepath.Join(dir, "no", "users"), nil, 0o640); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestEditTellsAnEmptyFileFromNone(t *testing.T) {
	name := filepath.Join(t.TempDir(), "users")
	if err := Edit(name, 0o640, func(old []byte) ([]byte, error) {
		if old != nil {
			t.Errorf("no file is %q", old)
		}
		return nil, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := Edit(name, 0o640, func(old []byte) ([]byte, error) {
		if old == nil {
			t.Error("an empty file is none")
		}
		return old, nil
	}); err != nil {
		t.Fatal(err)
	}
}

func TestEditWithoutAChangeWritesNothing(t *testing.T) {
	name := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	before, _ := os.Stat(name)
	for _, edit := range []func([]byte) ([]byte, error){
		func(old []byte) ([]byte, error) { return old, nil },
		func(old []byte) ([]byte, error) { return []byte("old"), nil },
	} {
		if err := Edit(name, 0o640, edit); err != nil {
			t.Fatal(err)
		}
	}
	if after, _ := os.Stat(name); !os.SameFile(before, after) {
		t.Error("the file was replaced")
	}
	if err := Edit(name, 0o640, func(old []byte) ([]byte, error) { return bytes.ToUpper(append(old[:0], "old"...)), nil }); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(name); string(text) != "OLD" {
		t.Errorf("a change in place is lost: %q", text)
	}
}

// Two folders may lead to one file, and a file may not exist yet.
func TestConcurrentEditsLoseNothing(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"real", "a", "b"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	err := errors.Join(os.Symlink("../real/users", dir+"/a/users"), os.Symlink(dir+"/a/users", dir+"/b/users"), os.Symlink("real", dir+"/c"))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var want []string
	for i, sub := range slices.Repeat([]string{"a", "b", "c", "real"}, 10) {
		line := fmt.Sprintf("%s%d", sub, i)
		want = append(want, line)
		wg.Go(func() {
			err := Edit(filepath.Join(dir, sub, "users"), 0o640, func(old []byte) ([]byte, error) {
				return append(old, line+"\n"...), nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	text, err := os.ReadFile(dir + "/real/users")
	got := strings.Fields(string(text))
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%d of %d edits are there: %v", len(got), len(want), err)
	}
	wantOnly(t, dir+"/real", "users", string(text))
}

func TestReadersNeverSeeHalfAFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "users")
	texts := []string{strings.Repeat("a", 100_000), strings.Repeat("b", 200_000)}
	if err := WriteFile(name, []byte(texts[0]), 0o640); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 50 {
			if err := WriteFile(name, []byte(texts[i%2]), 0o640); err != nil {
				t.Error(err)
			}
		}
	})
	for range 50 {
		text, err := os.ReadFile(name)
		if err != nil || !slices.Contains(texts, string(text)) {
			t.Fatalf("%d bytes, %v", len(text), err)
		}
	}
	wg.Wait()
}

// A file that is not in force shows at its domain, and at no other.
func TestStaleDomain(t *testing.T) {
	for name, c := range map[string]struct {
		file, text string
		stale      bool
	}{
		"aliases":  {"a.example/aliases", "broken\n", true},
		"users":    {"a.example/users", "broken\n", true},
		"settings": {"a.example/domain.toml", "broken\n", true},
		"new key":  {"a.example/dkim/s9.pem", "broken\n", true},
		"circle":   {"a.example/aliases", "x: y\ny: x\n", true},
		"right":    {"a.example/aliases", "y: z@else.example\n", false},
		"other":    {"b.example/aliases", "broken\n", false},
	} {
		h := newHost(t)
		for _, d := range []string{"a.example", "b.example"} {
			h.write(d+"/aliases", "x: y@else.example\n")
			h.write(d+"/users", "")
			h.write(d+"/domain.toml", "")
			h.write(d+"/dkim/s1.pem", pem1())
		}
		s := h.open()
		h.write(c.file, c.text)
		s.Reload()
		if d := s.Current().Get("a.example"); d.Broken != nil || d.Stale != c.stale || s.Current().Get("b.example").Stale != (name == "other") {
			t.Errorf("%s: stale %v, broken: %v", name, d.Stale, d.Broken)
		}
	}
}

// Settings that name who or what is not there are warned of, with their line.
func TestSettingsThatNameNobody(t *testing.T) {
	h := newHost(t)
	h.write("a.example/dkim/s1.pem", pem1())
	h.write("a.example/users", "ann:"+userHash+"\n")
	h.write("a.example/domain.toml", "srs_domain = \"srs.example\"\n[send_as]\nann = [\"news@x.example\"]\nbob = [\"news@x.example\"]\n")
	h.write("b.example/dkim/s1.pem", pem1())
	h.write("b.example/domain.toml", "srs_domain = \"a.example\"\nsend_as = { eve = [\"x@y.example\"] }\nmessages_per_hour = { Eve = 5 }\n")
	h.wantProblems(h.open().Warnings(),
		"a.example/domain.toml:1: srs_domain: srs.example is not hosted here, so that mail which leaves in its name is not signed: make it with `relay-util domain-add srs.example`",
		"a.example/domain.toml:4: send_as: there is no user bob: add one with `relay-util user-add bob@a.example`, or correct the name",
		"b.example/domain.toml:2: send_as: there is no user eve",
		"b.example/domain.toml:3: messages_per_hour: there is no user eve")
}
