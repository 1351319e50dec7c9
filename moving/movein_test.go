package moving

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayd/config"
	"relayd/problem"
)

// here makes a relay that hosts nothing.
func here(t *testing.T) Options {
	t.Helper()
	file := filepath.Join(tree{}.dir(t), "relayd.toml")
	cfg, err := config.Parse(file, []byte("hostname = \"mx.example.org\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	return Options{File: file, Config: cfg, Warn: t.Errorf}
}

func virtualAliases(t *testing.T, text string) *Plan {
	t.Helper()
	plan, err := PostfixVirtual(filepath.Join(tree{"virtual": text}.dir(t), "virtual"))
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

func TestAPlanIsMovedInWholeOrNotAtAll(t *testing.T) {
	opt := here(t)
	dir := opt.Config.DomainsDir()
	first := virtualAliases(t, "info@one.example me@gmail.example\n")
	opt.Dry = true
	o, err := MoveIn(first, opt)
	if err != nil || len(o.Domains) != 1 || !o.Domains[0].New {
		t.Fatalf("%+v, %v", o, err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dry run has made something: %v", err)
	}
	opt.Dry = false
	if o, err = MoveIn(first, opt); err != nil || !o.Domains[0].MadeKey {
		t.Fatalf("%+v, %v", o, err)
	}
	if o, err = MoveIn(first, opt); err != nil || len(o.Domains) != 0 {
		t.Errorf("once more: %+v, %v", o, err)
	}

	conflict := virtualAliases(t, "info@one.example you@gmail.example\nx@two.example me@gmail.example\n")
	_, err = MoveIn(conflict, opt)
	if list, ok := errors.AsType[problem.List](err); !ok || len(list) != 1 || !strings.Contains(list[0].Reason, "info@one.example is here already") {
		t.Errorf("%v", err)
	}
	circle := virtualAliases(t, "a@two.example b@three.example\nb@three.example a@two.example\n")
	if _, err = MoveIn(circle, opt); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Errorf("%v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
}

// TestASettingsFileThatCannotBeWrittenUndoesTheMove: it is the last step, with the domains in their places.
func TestASettingsFileThatCannotBeWrittenUndoesTheMove(t *testing.T) {
	opt := here(t)
	opt.Config = nil
	if err := os.Mkdir(opt.File, 0o700); err != nil { // a folder is in its place
		t.Fatal(err)
	}
	plan := virtualAliases(t, "info@one.example me@gmail.example\n")
	plan.Hostname = "mx.example.org"
	if o, err := MoveIn(plan, opt); err == nil {
		t.Fatalf("%+v", o)
	}
	if entries, err := os.ReadDir(filepath.Join(filepath.Dir(opt.File), "domains")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, %v", entries, err)
	}
}
