package links

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestLinksThatRootDoesNotFollow: links of user 1234 in its own folder, and where they lead.
func TestLinksThatRootDoesNotFollow(t *testing.T) {
	dir := t.TempDir()
	root := os.Geteuid() == 0
	for _, folder := range []string{"theirs", "theirs/own", "roots"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"theirs/own/file", "roots/file"} {
		if err := os.WriteFile(filepath.Join(dir, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	links := map[string]string{
		"to-own": "own/file", "nowhere": "own/new", "folder": "own", "circle": "circle", "up": "own/../own/file",
		"file": "../roots/file", "absolute": dir + "/roots/file", "new": "../roots/new", "far": "../roots/none/new", "dir": "../roots",
		"chain": "own/chain", "own/chain": "../../roots/file", "hop": "own/hop", "own/hop": "../../roots/new",
	}
	for name, to := range links {
		if err := os.Symlink(to, filepath.Join(dir, "theirs", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../roots/file", filepath.Join(dir, "theirs/by-root")); err != nil {
		t.Fatal(err)
	}
	if root {
		err := filepath.WalkDir(filepath.Join(dir, "theirs"), func(path string, _ os.DirEntry, err error) error {
			if filepath.Base(path) == "by-root" {
				return err
			}
			return errors.Join(err, os.Lchown(path, 1234, 1234))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, follow := range map[string]bool{
		"none": true, "none/below": true, "own/file": true, "to-own": true, "nowhere": true, "folder": true, "folder/file": true, "folder/new": true, "up": true, "by-root": true,
		"circle": false, "file": false, "absolute": false, "new": false, "far": false, "dir": false, "dir/file": false, "dir/new": false, "chain": false, "hop": false,
	} {
		err := Check(filepath.Join(dir, "theirs", name))
		if follow || !root {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		} else if err == nil {
			t.Errorf("%s is followed", name)
		}
	}
}
