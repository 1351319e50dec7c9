package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"relay-util": main, "sendmail": main})
}

// The scripts run with the daemon stopped: its state_dir does not exist. Those about the queue
// start one of their own.
func TestScripts(t *testing.T) {
	work, err := os.MkdirTemp("", "ts") // short enough for a socket, which that of t.TempDir need not be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(work) })
	testscript.Run(t, testscript.Params{
		Dir:         "testdata/script",
		WorkdirRoot: work,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exits,
			"mode":     mode,
			"contains": contains,
			"daemon":   daemon,
			"spoil":    spoil,
			"names":    names(t),
			"account":  account,
		},
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("GORACE", "atexit_sleep_ms=0") // or each of 200 runs takes a second under -race
			env.Values[runningKey{}] = new(func())
			return nil
		},
	})
}

// exits CODE ARGS... runs relay-util, which must exit with the code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec("relay-util", args[1:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(code) != args[0] {
		ts.Fatalf("exit code %d, want %s", code, args[0])
	}
}

// mode OCTAL FILE checks the permissions of a file.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// contains N FOLDER counts the names in a folder, hidden ones too: nothing may be left behind.
func contains(ts *testscript.TestScript, _ bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[1]))
	ts.Check(err)
	if strconv.Itoa(len(entries)) != args[0] {
		ts.Fatalf("%s contains %v", args[1], entries)
	}
}

// account ROOT makes who runs the test the system user relayd of another root file system.
func account(ts *testscript.TestScript, _ bool, args []string) {
	etc := filepath.Join(ts.MkAbs(args[0]), "etc")
	ts.Check(os.MkdirAll(etc, 0o755))
	ts.Check(os.WriteFile(filepath.Join(etc, "passwd"), fmt.Appendf(nil, "relayd:x:%d:%d::/:/bin/false\n", os.Getuid(), os.Getgid()), 0o644))
	ts.Check(os.WriteFile(filepath.Join(etc, "group"), fmt.Appendf(nil, "relayd:x:%d:\n", os.Getgid()), 0o644))
}
