package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"relayd/config"
)

// TestFilesThatAreOpenToEverybody are told of by -check, at start, in the status, and after a reload;
// nothing else changes.
func TestFilesThatAreOpenToEverybody(t *testing.T) {
	file := files(t, map[string]string{
		"relayd.toml": fmt.Sprintf("hostname = \"mx.example.test\"\npostmaster = \"me@elsewhere.test\"\nstate_dir = %q\n"+
			"[listen]\nsmtp = [\"127.0.0.1:0\"]\nsubmission = []\nsubmissions = []\n", t.TempDir()),
		"domains/example.test/aliases": "*: me@elsewhere.test\n",
		"domains/example.test/users":   "",
	})
	users, aliases := filepath.Join(filepath.Dir(file), "domains/example.test/users"), filepath.Join(filepath.Dir(file), "domains/example.test/aliases")
	if err := os.Chmod(users, 0o644); err != nil {
		t.Fatal(err)
	}
	want := users + ": everybody on this machine can read this file of password hashes (mode 0644): chmod o= " + users
	var out bytes.Buffer
	if code := run([]string{"-check", "-c", file}, &out, &out); code != 0 || !strings.Contains(out.String(), "warning: "+want) {
		t.Errorf("-check exits with %d:\n%s", code, &out)
	}
	conf, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	log := &screen{more: make(chan struct{}, 1)}
	d, err := start(ctx, conf, newLogger(conf.Log, log))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { stop(); d.Wait() }()
	if list := d.Status().Warnings; !strings.Contains(list.Error(), want) {
		t.Errorf("status: %v", list)
	}
	if !strings.Contains(log.String(), "chmod o= "+users) {
		t.Errorf("log: %s", log)
	}
	if err := os.Chmod(users, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(aliases, 0o666); err != nil {
		t.Fatal(err)
	}
	d.Reload()
	if list := d.Status().Warnings.Error(); strings.Contains(list, users) || !strings.Contains(list, "chmod o-w "+aliases) {
		t.Errorf("status after a reload: %v", list)
	}
}
