package domains

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestRootDoesNotWriteWhereALinkOfTheRelaysLeads: the folders are the relay's user's, and whoever has
// taken that over can put links there. Those of the admin's, and those to files of the same user, are followed.
func TestRootDoesNotWriteWhereALinkOfTheRelaysLeads(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("others than root are bounded by the system: their own links are followed")
	}
	const relay = 1234
	for _, c := range []struct {
		name, to string
		by       int // who has made the link
		follow   bool
	}{
		{"users", "system/shadow", relay, false},
		{"users", "system/new", relay, false},
		{"dkim", "system", relay, false},
		{"users", "own/users", relay, true},
		{"users", "own/new", relay, true},
		{"users", "system/shadow", 0, true},
		{"dkim", "system", 0, true},
	} {
		root := t.TempDir()
		at := func(name string) string { return filepath.Join(root, name) }
		err := errors.Join(os.MkdirAll(at("domains/a.example"), 0o755), os.Mkdir(at("system"), 0o755), os.Mkdir(at("own"), 0o755),
			os.WriteFile(at("system/shadow"), []byte("root:x\n"), 0o600), os.WriteFile(at("own/users"), []byte("root:x\n"), 0o600),
			os.Symlink("../../"+c.to, at("domains/a.example/"+c.name)))
		if err != nil {
			t.Fatal(err)
		}
		if os.Geteuid() == 0 {
			for _, name := range []string{"domains", "domains/a.example", "own", "own/users"} {
				err = errors.Join(err, os.Chown(at(name), relay, relay))
			}
			if err := errors.Join(err, os.Lchown(at("domains/a.example/"+c.name), c.by, c.by)); err != nil {
				t.Fatal(err)
			}
		}
		file := at("domains/a.example/" + c.name)
		if c.name == "dkim" {
			file += "/s1.pem"
		}
		for what, err := range map[string]error{
			"WriteFile": WriteFile(file, []byte("written\n"), 0o640),
			"Edit":      Edit(file, 0o640, func(old []byte) ([]byte, error) { return append(old, "edited\n"...), nil }),
		} {
			if want := c.follow || os.Geteuid() != 0; (err == nil) != want {
				t.Errorf("%s through %s to %s by %d: %v", what, c.name, c.to, c.by, err)
			}
		}
		if c.follow || os.Geteuid() != 0 {
			continue
		}
		wantOnly(t, at("system"), "shadow", "root:x\n")
		if _, err := MakeKey(at("domains/a.example"), "a.example", KeySpec{"s2", "ed25519"}); c.name == "dkim" && err == nil {
			t.Error("a key was made behind a link of the relay's")
		}
		wantOnly(t, at("system"), "shadow", "root:x\n")
	}
}

// TestRootMakesNoDomainBehindALinkOfTheRelays: the folder of all domains is the relay's user's, too.
func TestRootMakesNoDomainBehindALinkOfTheRelays(t *testing.T) {
	root := t.TempDir()
	err := errors.Join(os.Mkdir(filepath.Join(root, "system"), 0o755), os.Symlink("system", filepath.Join(root, "domains")))
	if err == nil && os.Geteuid() == 0 {
		err = os.Lchown(filepath.Join(root, "domains"), 1234, 1234)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = Make(filepath.Join(root, "domains"), "a.example", nil)
	if made := len(in(t, filepath.Join(root, "system"))); (err != nil) != (os.Geteuid() == 0) || (err != nil) != (made == 0) {
		t.Errorf("%v, %d files made", err, made)
	}
}

func TestNamesThatAreNoDomains(t *testing.T) {
	for _, name := range []string{
		"", ".", "..", "../outside", "a/b", "/etc", "a.example/../b", "a.example/.", "./a.example", `a\b.example`, `..\outside`, "a\x00.example", ".hidden",
		"a..example", "..a.example", "%2e%2e", "..%2foutside", "%2e%2e%2foutside", "*", "*.example", "a b.example", "a\n.example", "a\x1b[2J.example", "a\u202e.example",
		strings.Repeat("x", 64) + ".example", strings.Repeat("x.", 127) + "example", "-a.example", "a-.example", "[192.0.2.1]", "127.0.0.1", "xn--\xff.example", "a:b", "~", "$HOME",
	} {
		root := t.TempDir()
		dir := filepath.Join(root, "etc/domains")
		if err := errors.Join(os.MkdirAll(dir, 0o755), os.Mkdir(filepath.Join(root, "outside"), 0o755)); err != nil {
			t.Fatal(err)
		}
		if _, err := Make(dir, name, nil); err == nil {
			t.Errorf("%q was made a domain", name)
		}
		if got := tree(t, root); got != "etc etc/domains outside" {
			t.Errorf("%q: there is now %s", name, got)
		}
	}
}

// tree lists all that is below a folder.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if path != dir {
			names = append(names, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}
