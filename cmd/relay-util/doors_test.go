package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"relayd/problem"
)

// hostile are names that somebody may give for a domain, a user, an alias, a selector or a message.
var hostile = []string{
	"", ".", "..", "../outside", "../../outside", "a/../../outside", "/etc", "./a.example", "a/b.example", `..\outside`, `a\b.example`, "a\x00b.example",
	".hidden.example", "..a.example", "a..example", "%2e%2e", "..%2foutside", "%2e%2e%2foutside.example", "*", "*.example", "a b.example", "a\nb.example",
	"a\x1b[2J.example", "a\u202eb.example", strings.Repeat("x", 64) + ".example", strings.Repeat("x.", 130) + "example", "-a.example", "--all", "~", "$HOME", "`id`", "a;b.example",
	"UPPER.example", "trailing.example.", "bücher.example", "xn--bcher-kva.example", "xn--zzzzzzz--.example", "\xff.example", "[192.0.2.1]", "127.0.0.1",
}

// TestNoNameBecomesAPathUnchecked gives each of these names at each door. Whatever comes of it, nothing
// outside of the folder of the domains is made or changed, and what is made there has the name of a domain.
func TestNoNameBecomesAPathUnchecked(t *testing.T) {
	root := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/relayd.toml", fmt.Sprintf("hostname = \"mx.example.com\"\nstate_dir = %q\n[auth]\nbcrypt_cost = 4\n", root+"/state"))
	write("etc/domains/example.org/aliases", "a: b@example.net\n")
	write("etc/domains/example.org/users", "")
	write("etc/outside/users", "sentinel\n")
	write("outside/users", "sentinel\n")
	write("state/queue/file", "sentinel\n")
	before := contents(t, root, "etc/domains")
	for _, name := range hostile {
		for _, args := range [][]string{
			{"domain-add", "--", name}, {"domain-remove", "--yes", "--", name}, {"domain-add", "--forward", "a@" + name, "--", "b.example"},
			{"dkim-keygen", "--algo", "ed25519", "--", name}, {"dkim-keygen", "example.org", "--algo", "ed25519", "--selector=" + name},
			{"dkim-dns", "--", name}, {"dns", "--zone", "--", name},
			{"user-add", "--password=long-enough", "--", "a@" + name}, {"user-add", "--password=long-enough", "--", name + "@example.org"},
			{"user-passwd", "--password=long-enough", "--", name + "@example.org"}, {"user-remove", "--", "a@" + name}, {"user-disable", "--", name + "@example.org"},
			{"user-list", "--", name}, {"authenticate", "--password=x", "--", "a@" + name}, {"authenticate", "--password=x", "--", name + "@example.org"},
			{"alias-add", "--", name + "@example.org", "x@example.net"}, {"alias-add", "--", "b@example.org", name}, {"alias-add", "--", "a@" + name, "x@example.net"},
			{"alias-remove", "--", name + "@example.org"}, {"alias-list", "--", name}, {"aliases-resolve", "--", name + "@example.org"}, {"aliases-resolve", "--", "a@" + name},
			{"queue-show", "--", name}, {"queue-export", "--", name}, {"queue-remove", "--", name}, {"queue-hold", "--", name},
		} {
			var out bytes.Buffer
			run(context.Background(), append([]string{"-c", root + "/etc/relayd.toml"}, args...), streams{strings.NewReader(""), &out, &out})
			if after := contents(t, root, "etc/domains"); after != before {
				t.Fatalf("%q has made of\n%sthis:\n%s%s", args, before, after, &out)
			}
		}
	}
	for _, pattern := range []string{"*", "*/dkim/*"} {
		made, err := filepath.Glob(filepath.Join(root, "etc/domains", pattern))
		if err != nil || len(made) < 2 {
			t.Errorf("%s: %q, %v: no name was taken that is one", pattern, made, err)
		}
		for _, file := range made {
			if name := filepath.Base(file); strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || strings.HasPrefix(name, ".") || strings.Contains(name, "..") {
				t.Errorf("%q was made", file)
			}
		}
	}
}

// contents is all that is below a folder but for one.
func contents(t *testing.T, root, but string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		name, _ := filepath.Rel(root, path)
		switch {
		case err != nil:
			return err
		case name == but:
			return fs.SkipDir
		case e.IsDir():
			fmt.Fprintf(&b, "%s/\n", name)
			return nil
		}
		text, err := os.ReadFile(path)
		fmt.Fprintf(&b, "%s: %q\n", name, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestExportBelievesNoNameOfTheDaemons: root may export, and relayd has fewer rights.
func TestExportBelievesNoNameOfTheDaemons(t *testing.T) {
	dir, err := os.MkdirTemp("", "ru")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(dir+"/relayd.toml", fmt.Appendf(nil, "hostname = \"mx.example.com\"\nstate_dir = %q\n", dir), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", dir+"/control.sock")
	if err != nil {
		t.Fatal(err)
	}
	id := "GOODNAME"
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/list"):
			fmt.Fprintf(w, `[{"id":%q}]`, id)
		case strings.HasSuffix(r.URL.Path, "/eml"):
			fmt.Fprint(w, "Subject: x\r\n\r\n")
		default:
			fmt.Fprint(w, "{}")
		}
	})}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	defer func() { server.Close(); <-ended }()
	export := func(to string) (code int, said string) {
		var out bytes.Buffer
		code = run(context.Background(), []string{"queue-export", "--all", dir + "/" + to, "-c", dir + "/relayd.toml"}, streams{strings.NewReader(""), &out, &out})
		return code, out.String()
	}
	if code, said := export("one"); code != 0 {
		t.Fatalf("a good name: %d, %s", code, said)
	}
	before := contents(t, dir, "control.sock")
	for i, bad := range []string{"../escaped", "..", "/" + dir + "/absolute", "a/b", ""} {
		id = bad
		if code, said := export("two"); code != 1 || !strings.Contains(said, "relayd names a message as it cannot be") {
			t.Errorf("%d, %q: %d, %s", i, bad, code, said)
		}
		if err := os.Remove(dir + "/two"); err != nil {
			t.Error(err)
		}
		if after := contents(t, dir, "control.sock"); after != before {
			t.Fatalf("%q: there is now %s", bad, after)
		}
	}
}

// TestWhoMayNotReadIsToldToTrySudo, also where what is wrong is a list of files.
func TestWhoMayNotReadIsToldToTrySudo(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{"closed", "open"} {
		if err := errors.Join(os.WriteFile(filepath.Join(dir, file), nil, 0o644), os.Chmod(filepath.Join(dir, file), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "closed"), 0); err != nil {
		t.Fatal(err)
	}
	for path := dir; path != os.TempDir() && path != "/"; path = filepath.Dir(path) { // or nobody else gets there
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer unix.Setfsuid(0)
		if err := unix.Setfsuid(1234); err != nil { // to whom root.s rights do not apply
			t.Fatal(err)
		}
	}
	for file, want := range map[string]bool{"closed": true, "open": false} {
		var out bytes.Buffer
		(&tool{err: &out}).complain(problem.List{problem.At(filepath.Join(dir, file), 0, "it is so")})
		if strings.Contains(out.String(), "try sudo") != want {
			t.Errorf("%s: %s", file, &out)
		}
	}
}
