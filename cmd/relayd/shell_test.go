package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Neither program starts a shell, whose words could come from outside.
func TestNoShellAnywhere(t *testing.T) {
	shell := regexp.MustCompile(`"(/usr)?/bin/(sh|bash|dash|ash|zsh)"|"sh"|\bos\.StartProcess\b|syscall\.(Exec|ForkExec)\b`)
	seen := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "bench" || d.Name() == "interop"):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if found := shell.Find(text); found != nil {
			t.Errorf("%s has %s", path, found)
		}
		seen++
		return err
	})
	if err != nil || seen < 100 {
		t.Errorf("%d files were read: %v", seen, err)
	}
}
