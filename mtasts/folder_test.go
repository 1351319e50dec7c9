package mtasts

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func inDir(dir string) func(*Options) { return func(o *Options) { o.Dir = dir } }

// files are the names in a folder.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		names = append(names, f.Name())
	}
	return names
}

func TestRestart(t *testing.T) {
	w, dir := newWorld(t), filepath.Join(t.TempDir(), "state", "mtasts")
	w.want(w.open(inDir(dir)), "example.com", Enforce, "", 1)
	if got := files(t, dir); !slices.Equal(got, []string{"example.com.policy"}) {
		t.Errorf("files %q", got)
	}

	w.handle(http.NotFound)
	c := w.open(inDir(dir))
	w.want(c, "example.com", Enforce, "", 1)
	p, err := c.Policy(t.Context(), "example.com")
	if err != nil || p.String() != enforced {
		t.Errorf("%q, %v", p, err)
	}
	w.clock.Advance(604800 * time.Second)
	w.want(w.open(inDir(dir)), "example.com", None, FetchError, 2)
}

// The clock was wrong when the policy was fetched.
func TestFetchedInTheFuture(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	w.want(w.open(inDir(dir)), "example.com", Enforce, "", 1)
	w.clock.Advance(-300 * 24 * time.Hour)
	c := w.open(inDir(dir))
	w.announce("example.com")
	w.want(c, "example.com", Enforce, "", 1)
	w.clock.Advance(604800 * time.Second)
	w.want(c, "example.com", None, "", 1)
}

func TestDamagedFiles(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	w.want(w.open(inDir(dir)), "example.com", Enforce, "", 1)
	path := filepath.Join(dir, "example.com"+suffix)
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{
		"empty":         {},
		"truncated":     good[:len(good)-1],
		"half":          good[:len(good)/2],
		"too much":      append(bytes.Clone(good), '\n'),
		"changed":       bytes.Replace(good, []byte("enforce"), []byte("testing"), 1),
		"zeros":         make([]byte, len(good)),
		"something big": bytes.Repeat([]byte("x"), 2*maxFile),
		"version 2":     bytes.Replace(good, []byte("policy 1"), []byte("policy 2"), 1),
	} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c := w.open(inDir(dir))
		if got := files(t, dir); len(c.entries) != 0 || len(got) != 0 {
			t.Errorf("%s: %d entries, files %q", name, len(c.entries), got)
		}
	}
	// A whole file of another name is about another domain.
	if err := os.WriteFile(filepath.Join(dir, "example.org"+suffix), good, 0o600); err != nil {
		t.Fatal(err)
	}
	if c := w.open(inDir(dir)); len(c.entries) != 0 {
		t.Error("a policy counts for another domain")
	}
}

// The folder turns out to be one that other things are kept in.
func TestForeignFiles(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	for _, name := range []string{"notes.txt", "key.pem", ".hidden"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"+suffix), 0o700); err != nil {
		t.Fatal(err)
	}
	// A draft was left behind when the power failed.
	if err := os.WriteFile(filepath.Join(dir, ".draft-1"+suffix), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.open(inDir(dir))
	if got := files(t, dir); !slices.Equal(got, []string{".hidden", "folder.policy", "key.pem", "notes.txt"}) {
		t.Errorf("files %q", got)
	}
}

func TestBoundOnDisk(t *testing.T) {
	dir := t.TempDir()
	w := newWorld(t, "mta-sts.a.test", "mta-sts.b.test", "mta-sts.c.test")
	c := w.open(inDir(dir))
	for i, domain := range []string{"a.test", "b.test", "c.test"} {
		w.announce(domain, "v=STSv1; id=1")
		w.want(c, domain, Enforce, "", i+1)
		w.clock.Advance(time.Second)
	}
	c = w.open(inDir(dir), func(o *Options) { o.MaxEntries = 2 })
	if got := files(t, dir); !slices.Equal(got, []string{"b.test.policy", "c.test.policy"}) || len(c.entries) != 2 {
		t.Errorf("files %q, %d entries", got, len(c.entries))
	}
}

func TestUnusableFolder(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Resolver: w, Dir: filepath.Join(file, "sub")}); err == nil {
		t.Error("a file is no folder")
	}
	// One that vanishes later costs the memory of a restart and nothing else.
	dir := filepath.Join(t.TempDir(), "gone")
	c := w.open(inDir(dir))
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	w.want(c, "example.com", Enforce, "", 1)
	c.Close()
	if !strings.Contains(w.log.String(), "MTA-STS policy not written") {
		t.Errorf("log: %s", w.log.String())
	}
}

func TestNamesThatAreNoFiles(t *testing.T) {
	d := folder{dir: "/state"}
	for _, domain := range []string{"", ".", "..", "../x", "a/b", "/etc/passwd", "a\x00b", "A.b", "a.b.", "é.b", "[192.0.2.1]", ".a"} {
		if path, err := d.path(domain); err == nil {
			t.Errorf("%q: %s", domain, path)
		}
	}
	if path, err := d.path("xn--bcher-kva.example"); err != nil || path != "/state/xn--bcher-kva.example.policy" {
		t.Errorf("%s, %v", path, err)
	}
}

func TestFileIsReadAsWritten(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		before := func(label string) time.Time {
			return now.Add(-time.Duration(rapid.Int64Range(0, 1<<60).Draw(t, label)))
		}
		want := saved{
			Domain:  rapid.StringMatching(`[a-z0-9]{1,20}(\.[a-z0-9]{1,20}){0,3}`).Draw(t, "domain"),
			ID:      rapid.StringMatching(`[A-Za-z0-9]{1,32}`).Draw(t, "id"),
			Fetched: before("fetched"), Used: before("used"),
			Policy: Policy{Mode: Testing, MX: []string{"*.a.b"}, MaxAge: time.Hour},
		}
		data, err := encode(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := decode(data, now)
		if err != nil || got.Domain != want.Domain || got.ID != want.ID || !got.Fetched.Equal(want.Fetched) ||
			!got.Used.Equal(want.Used) || got.Policy.String() != want.Policy.String() {
			t.Fatalf("%+v became %+v, %v", want, got, err)
		}
		data[rapid.IntRange(0, len(data)-1).Draw(t, "byte")]++
		if _, err := decode(data, now); err == nil {
			t.Fatalf("damage unnoticed: %q", data)
		}
	})
}

// FuzzFile takes what may stand in a file, with a digest that is right as often as the fuzzer likes:
// what is taken keeps the rules of a policy from the network.
func FuzzFile(f *testing.F) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	good, err := encode(saved{"example.com", "1", now, now, Policy{Mode: Enforce, MX: []string{"a.b"}, MaxAge: time.Hour}})
	if err != nil {
		f.Fatal(err)
	}
	_, body, _ := bytes.Cut(good, []byte("\n"))
	f.Add(good, false)
	f.Add(body, true)
	f.Add([]byte(`{"domain":"../x","id":"1","fetched":"2026-01-01T00:00:00Z","policy":"x"}`), true)
	f.Add([]byte("{}"), true)
	f.Add([]byte{}, false)
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if seal {
			data = sealed(data)
		}
		s, err := decode(data, now)
		if err != nil {
			return
		}
		_, noFile := folder{dir: "/state"}.path(s.Domain)
		if noFile != nil || s.Fetched.After(now) || s.Used.After(now) || s.Policy.MaxAge > maxAge*time.Second || s.ID == "" {
			t.Errorf("%+v", s)
		}
		again, err := encode(s)
		if err != nil {
			t.Fatal(err)
		}
		if twice, err := decode(again, now); err != nil || twice.Policy.String() != s.Policy.String() {
			t.Errorf("%+v became %+v, %v", s, twice, err)
		}
	})
}
