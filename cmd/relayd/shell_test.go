package main

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// started are the programs that the sources start: names that stand there, or that the admin has given.
var started = map[string][]string{
	"cmd/relay-util/setup.go": {"exec.CommandContext(ctx, name"},    // setup's: see below
	"delivery/pipe.go":        {"exec.CommandContext(ctx, argv[0]"}, // of an alias, where allow_pipe is set
	"setup/machine.go":        {`World.Run(ctx, "useradd"`},
	"setup/removal.go":        {`World.Run(ctx, "systemctl"`, `World.Run(ctx, "systemctl"`},
	"setup/unit.go":           {`run(ctx, "systemctl"`, `run(ctx, "systemctl"`, `run(ctx, "systemctl"`, `run(ctx, "systemctl"`},
	"trace/journal.go":        {`exec.CommandContext(ctx, "journalctl"`},
}

// Neither program starts a shell, whose words could come from outside, nor any program but these.
func TestNoShellAnywhere(t *testing.T) {
	shell := regexp.MustCompile(`"(/usr)?/bin/(sh|bash|dash|ash|zsh)"|"(sh|bash|dash|ash|zsh)", *"-|"sh"|\bos\.StartProcess\b|(syscall|unix)\.(Exec|ForkExec|StartProcess)\b|exec\.Cmd\{`)
	start := regexp.MustCompile(`exec\.Command\([^,)]*|exec\.CommandContext\(ctx, [^,)]*|exec\.CommandContext\([^c][^)]*|World\.Run\([^,)]*, [^,)]*|\brun\(ctx, "[^"]*"`)
	seen, found := 0, map[string][]string{}
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
		if word := shell.Find(text); word != nil {
			t.Errorf("%s has %s", path, word)
		}
		if all := start.FindAllString(string(text), -1); len(all) > 0 {
			found[strings.TrimPrefix(path, "../../")] = all
		}
		seen++
		return err
	})
	if err != nil || seen < 100 {
		t.Errorf("%d files were read: %v", seen, err)
	}
	if !maps.EqualFunc(found, started, slices.Equal) {
		t.Errorf("programs are started in these places:\n%q\nand known are:\n%q", found, started)
	}
}
