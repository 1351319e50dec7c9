package domains

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// kept lists what is below the folder of the copies, and checks who may read it.
func (h *host) kept() []string {
	h.Helper()
	var names []string
	err := filepath.WalkDir(h.good, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if info.Mode().Perm() != want {
			h.Errorf("%s has mode %v", name, info.Mode())
		}
		if rel, _ := filepath.Rel(h.good, name); !e.IsDir() {
			names = append(names, rel)
		}
		return nil
	})
	if err != nil {
		h.Fatal(err)
	}
	return names
}

func TestCopiesAreWhatIsInForce(t *testing.T) {
	h := newHost(t)
	h.write("A.example/aliases", "x: y@else.example\n")
	h.write("A.example/users", "ann:"+userHash+"\n")
	h.write("A.example/dkim/s1.pem", pem1())
	h.write("b.example/aliases", "x: y@else.example\n")
	h.write("b.example/users", "broken\n")
	s := h.open()
	want := []string{"a.example/aliases", "a.example/dkim/s1.pem", "a.example/users"}
	if got := h.kept(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}

	h.write("A.example/dkim/s2.pem", pem2())
	h.remove("A.example/dkim/s1.pem")
	h.write("A.example/aliases", "broken\n")
	h.remove("b.example")
	s.Reload()
	want = []string{"a.example/aliases", "a.example/dkim/s2.pem", "a.example/users"}
	if got := h.kept(); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if text, err := os.ReadFile(h.good + "/a.example/aliases"); string(text) != "x: y@else.example\n" {
		t.Errorf("%q, %v", text, err)
	}
}

// A domain that is hosted again is a new one: what it once was must not come back.
func TestCopiesOfARemovedDomainAreGone(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@else.example\n")
	h.open()
	h.remove("a.example")
	h.open() // it was removed while nothing ran
	if got := h.kept(); len(got) > 0 {
		t.Errorf("%q", got)
	}
	h.write("a.example/aliases", "broken\n")
	h.wantLeads(h.open(), "x@a.example", "451")
}

func TestRestOfAWriteThatCrashedIsNoCopy(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@else.example\n")
	h.write("a.example/dkim/s1.pem", pem1())
	h.open()
	for _, name := range []string{"a.example/.aliases.123", "a.example/dkim/.s1.pem.123", "a.example/dkim/.s2.pem"} {
		if err := os.WriteFile(filepath.Join(h.good, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h.remove("a.example/dkim")
	s := h.open()
	h.wantProblems(s.Problems(), "s1.pem: the last key is gone")
	if got := h.kept(); !slices.Equal(got, []string{"a.example/aliases", "a.example/dkim/s1.pem"}) {
		t.Errorf("%q", got)
	}
}

func TestCopiesCannotBeKept(t *testing.T) {
	h := newHost(t)
	if err := os.WriteFile(filepath.Dir(h.good), nil, 0o600); err != nil { // a file where the state folder should be
		t.Fatal(err)
	}
	h.write("a.example/aliases", "x: y@else.example\n")
	s := h.open()
	h.wantLeads(s, "x@a.example", "y@else.example")
	if err := os.Remove(filepath.Dir(h.good)); err != nil {
		t.Fatal(err)
	}
	s.Reload()
	if got := h.kept(); !slices.Equal(got, []string{"a.example/aliases"}) {
		t.Errorf("%q", got)
	}
}
