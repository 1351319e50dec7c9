package srs

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestLoadSecrets(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets")
	for _, tt := range []struct{ text, want string }{
		{"one\n", `["one"]`},
		{"\xef\xbb\xbf# a comment\r\none\r\n\r\n  \ntwo, #with blanks ", `["one" "two, #with blanks "]`},
		{"", `[]`},
		{"# nothing\n\n", `[]`},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		secrets, err := LoadSecrets(path)
		if got := fmt.Sprintf("%q", secrets); got != tt.want || (err != nil) != (tt.want == "[]") {
			t.Errorf("%q: %s, %v", tt.text, got, err)
		}
		if err != nil && !strings.HasPrefix(err.Error(), path+": ") {
			t.Errorf("error %q does not begin with the file", err)
		}
	}
	if _, err := LoadSecrets(t.TempDir()); err == nil {
		t.Error("a folder was read")
	}
	if _, err := LoadSecrets(filepath.Join(t.TempDir(), "no", "secrets")); err == nil {
		t.Error("a file was made in a folder that does not exist")
	}
}

// Two programs that start at once, with no file yet, end up with the same secret.
func TestLoadSecretsMakesOne(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "secrets")
	made := make([]string, 8)
	var all sync.WaitGroup
	for i := range made {
		all.Go(func() {
			secrets, err := LoadSecrets(path)
			if err != nil || len(secrets) != 1 {
				t.Errorf("%q, %v", secrets, err)
				return
			}
			made[i] = string(secrets[0])
		})
	}
	all.Wait()
	if len(made[0]) < 32 || len(slices.Compact(made)) != 1 {
		t.Errorf("secrets %q", made)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) != 1 {
		t.Errorf("left behind: %v, %v", names, err)
	}
}
