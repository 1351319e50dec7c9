package users

import (
	"errors"
	"strings"
	"testing"
)

const otherHash = "$2b$10$aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestEditsChangeOneLine(t *testing.T) {
	set := func(data []byte, local string) ([]byte, error) { return Set(data, local, otherHash) }
	tests := []struct {
		name     string
		edit     func([]byte, string) ([]byte, error)
		from, to string // H is the old hash, N the new one
	}{
		{"add to nothing", set, "", "bob:N\n"},
		{"add after a line without end", set, "#x", "#x\nbob:N\n"},
		{"add with the line ends of the file", set, "#x\r\n\r\n", "#x\r\n\r\nbob:N\r\n"},
		{"change", set, "a:H\nBob:H\nc:H\n", "a:H\nBob:N\nc:H\n"},
		{"change keeps CRLF", set, "bob:H\r\nc:H\r\n", "bob:N\r\nc:H\r\n"},
		{"change keeps the end of the file", set, "bob:H", "bob:N"},
		{"change keeps what Dovecot wrote", set, "bob:{BLF-CRYPT}H::1:x\n", "bob:{BLF-CRYPT}N::1:x\n"},
		{"change keeps the mark", set, "bob:!H\n", "bob:!N\n"},
		{"change repairs what was no hash", set, "bob:hunter2\n", "bob:N\n"},
		{"a comment is no user", set, "#bob:H\n", "#bob:H\nbob:N\n"},
		{"remove", Remove, "a:H\n#\nbob:H\nc:H", "a:H\n#\nc:H"},
		{"remove the last", Remove, "a:H\r\nbob:H", "a:H\r\n"},
		{"disable", Disable, "a:H\nbob:H:x\r\n", "a:H\nbob:!H:x\r\n"},
		{"disable twice", Disable, "bob:!H\n", "bob:!H\n"},
		{"enable", Enable, "bob:!H", "bob:H"},
		{"enable whichever mark", Enable, "bob:!{BLF-CRYPT}!!H", "bob:{BLF-CRYPT}H"},
		{"enable twice", Enable, "bob:H\n", "bob:H\n"},
	}
	hashes := strings.NewReplacer("H", hash4, "N", otherHash)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from := strings.ReplaceAll(tt.from, "BLF-CRYPT", "blf-crypt")
			to := strings.ReplaceAll(tt.to, "BLF-CRYPT", "blf-crypt")
			got, err := tt.edit([]byte(hashes.Replace(from)), "bOb")
			if err != nil || string(got) != hashes.Replace(to) {
				t.Errorf("%q became %q, %v", from, got, err)
			}
		})
	}
}

func TestEditsNeedTheUser(t *testing.T) {
	for _, edit := range []func([]byte, string) ([]byte, error){Remove, Disable, Enable} {
		for _, text := range []string{"", "a:" + hash4 + "\n", "#bob:x\nbob\n"} {
			if _, err := edit([]byte(text), "bob"); !errors.Is(err, ErrNoUser) {
				t.Errorf("%q: %v", text, err)
			}
		}
	}
}

func TestEditsRefuseAUserThatStandsTwice(t *testing.T) {
	text := []byte("bob:" + hash4 + "\nBob:" + hash4 + "\n")
	if _, err := Disable(text, "bob"); err == nil || errors.Is(err, ErrNoUser) {
		t.Errorf("Disable: %v", err)
	}
	if _, err := Set(text, "bob", otherHash); err == nil {
		t.Error("Set changed one of two")
	}
}

func TestSetLetsNothingIntoTheFileThatParseRefuses(t *testing.T) {
	for _, name := range []string{"", "a:b", "a\nb", "#a", "!a", "a/b", "a b", "a@b"} {
		if got, err := Set(nil, name, otherHash); err == nil {
			t.Errorf("Set(%q) = %q", name, got)
		}
	}
	for _, hash := range []string{"", "hunter2", otherHash + "\n", "!" + otherHash} {
		if got, err := Set(nil, "a", hash); err == nil {
			t.Errorf("Set(a, %q) = %q", hash, got)
		}
	}
}

// checkEdits checks on a file that parses that each edit of u does what it says and leaves the
// others alone, and that what is undone is the old file again.
func checkEdits(t *testing.T, text string, u User) {
	t.Helper()
	others := func(data []byte) map[string]User {
		m := make(map[string]User)
		for _, o := range parse(t, string(data)).All() {
			if o.Name != u.Name {
				o.Line = 0
				m[o.Name] = o
			}
		}
		return m
	}
	edits := map[string]func() ([]byte, error){
		"set":     func() ([]byte, error) { return Set([]byte(text), u.Name, otherHash) },
		"remove":  func() ([]byte, error) { return Remove([]byte(text), u.Name) },
		"disable": func() ([]byte, error) { return Disable([]byte(text), u.Name) },
		"enable":  func() ([]byte, error) { return Enable([]byte(text), u.Name) },
	}
	want := map[string]User{
		"set":     {u.Name, otherHash, u.Disabled, u.Line},
		"remove":  {},
		"disable": {u.Name, u.Hash, true, u.Line},
		"enable":  {u.Name, u.Hash, false, u.Line},
	}
	before := others([]byte(text))
	for name, edit := range edits {
		data, err := edit()
		if err != nil {
			t.Fatalf("%s of %q in %q: %v", name, u.Name, text, err)
		}
		if got, _ := parse(t, string(data)).Lookup(u.Name); got != want[name] {
			t.Fatalf("%s in %q: user is %v, want %v", name, text, got, want[name])
		}
		after := others(data)
		if len(after) != len(before) {
			t.Fatalf("%s of %q in %q changed the others", name, u.Name, text)
		}
		for n, o := range before {
			if after[n] != o {
				t.Fatalf("%s of %q in %q changed %q", name, u.Name, text, n)
			}
		}
	}
}
