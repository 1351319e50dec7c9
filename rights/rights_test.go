package rights

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"relayd/config"
)

// newSite makes a relay's files, all of them as they should be, and returns its settings.
func newSite(t *testing.T) *config.Config {
	t.Helper()
	root := t.TempDir()
	files := map[string]string{
		"etc/relayd.toml": fmt.Sprintf("hostname = \"mx.example.org\"\nstate_dir = %q\n"+
			"[outbound]\nsmarthost = \"submission://me@smart.example\"\npassword_file = \"smarthost\"\n"+
			"[filter]\nrspamd = \"http://127.0.0.1:1\"\npassword_file = \"rspamd\"\n[acme.dns]\ntoken_file = \"token\"\n", root+"/state"),
		"etc/smarthost": "a\n", "etc/rspamd": "b\n", "etc/token": "c\n",
		"etc/domains/a.example/users": "", "etc/domains/a.example/aliases": "", "etc/domains/a.example/domain.toml": "", "etc/domains/a.example/dkim/s.pem": "",
		"etc/certs/b/privkey.pem": "", "etc/certs/b/fullchain.pem": "",
		"state/control.sock": "", "state/queue/log/1.log": "", "state/lastgood/a.example/users": "", "state/srs-secrets": "",
		"state/certs/account.json": "", "state/certs/state.json": "", "state/certs/.c~1/privkey.pem": "", "state/certs/.c~1/fullchain.pem": "",
	}
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(".c~1", root+"/state/certs/c"); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil || e.Type() == fs.ModeSymlink:
			return err
		case e.IsDir():
			return os.Chmod(path, 0o750)
		}
		return os.Chmod(path, 0o640)
	})
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(root + "/etc/relayd.toml")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestNoPlaceIsBelowAFile: the checkup told of files that ACME keeps beside its certificates as if they
// were folders that it may not look into.
func TestNoPlaceIsBelowAFile(t *testing.T) {
	for _, p := range Places(newSite(t)) {
		if _, err := os.Stat(p.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
	}
}

func TestWhatEverybodyCanReadOrChangeIsToldOf(t *testing.T) {
	c := newSite(t)
	if list := Check(c); len(list) > 0 {
		t.Fatalf("though all is as it should be: %v", list)
	}
	for _, test := range []struct {
		name string
		mode fs.FileMode
		want string // what everybody can do, and how to mend it; "" for nothing wrong
	}{
		{"etc/relayd.toml", 0o644, ""},
		{"etc/relayd.toml", 0o646, "change this settings file (mode 0646): chmod o-w"},
		{"etc", 0o755, ""},
		{"etc", 0o757, "change this folder of the settings (mode 0757): chmod o-w"},
		{"etc/domains", 0o777 | fs.ModeSticky, "change this folder of the domains (mode 0777): chmod o-w"},
		{"etc/domains/a.example", 0o752, "change this folder of a domain (mode 0752): chmod o-w"},
		{"etc/domains/a.example/users", 0o660, ""},
		{"etc/domains/a.example/users", 0o644, "read this file of password hashes (mode 0644): chmod o="},
		{"etc/domains/a.example/aliases", 0o644, ""},
		{"etc/domains/a.example/aliases", 0o642, "change this file of aliases (mode 0642): chmod o-w"},
		{"etc/domains/a.example/domain.toml", 0o666, "change this settings file of a domain (mode 0666): chmod o-w"},
		{"etc/domains/a.example/dkim", 0o757, "change this folder of private keys (mode 0757): chmod o-w"},
		{"etc/domains/a.example/dkim/s.pem", 0o604, "read this private key (mode 0604): chmod o="},
		{"etc/certs", 0o757, "change this folder of the certificates (mode 0757): chmod o-w"},
		{"etc/certs/b", 0o757, "change this folder of a certificate (mode 0757): chmod o-w"},
		{"etc/certs/b/privkey.pem", 0o644, "read this private key (mode 0644): chmod o="},
		{"etc/certs/b/fullchain.pem", 0o644, ""},
		{"etc/certs/b/fullchain.pem", 0o646, "change this certificate (mode 0646): chmod o-w"},
		{"etc/smarthost", 0o644, "read this password (mode 0644): chmod o="},
		{"etc/rspamd", 0o602, "change this password (mode 0602): chmod o="},
		{"etc/token", 0o644, "read this password (mode 0644): chmod o="},
		{"state", 0o751, ""},
		{"state", 0o753, "change this state folder (mode 0753): chmod o-w"},
		{"state/control.sock", 0o666, "change this control socket (mode 0666): chmod o="},
		{"state/queue", 0o755, "look into this folder of mail that waits (mode 0755): chmod o="},
		{"state/lastgood", 0o755, "look into this folder of last good copies (mode 0755): chmod o="},
		{"state/srs-secrets", 0o644, "read this secret of SRS (mode 0644): chmod o="},
		{"state/certs/account.json", 0o644, "read this key of the account for certificates (mode 0644): chmod o="},
		{"state/certs/c/privkey.pem", 0o644, "read this private key (mode 0644): chmod o="},
	} {
		file := filepath.Join(filepath.Dir(c.Dir()), test.name)
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, test.mode); err != nil {
			t.Fatal(err)
		}
		want := []string{}
		if test.want != "" {
			want = append(want, file+": everybody on this machine can "+test.want+" "+file)
		}
		got := []string{}
		for _, p := range Check(c) {
			got = append(got, p.String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s, mode %o: %q, want %q", test.name, test.mode, got, want)
		}
		if err := os.Chmod(file, info.Mode()); err != nil {
			t.Fatal(err)
		}
	}
}

// A file beside the folders of domains or certificates, as certbot makes one, has nothing in it that could be
// looked at.
func TestFileBesideFolders(t *testing.T) {
	c := newSite(t)
	want := len(Places(c))
	for _, dir := range []string{c.DomainsDir(), c.CertsDir(), c.ACMEDir()} {
		if err := os.WriteFile(filepath.Join(dir, "README"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(Places(c)); got != want {
		t.Errorf("%d places, want %d", got, want)
	}
}

// A folder's name is one word of the command, whatever somebody has called it.
func TestCommandForAHostileName(t *testing.T) {
	for name, want := range map[string]string{
		"/d/a-b_c.example": "/d/a-b_c.example", "/d/a; reboot": "'/d/a; reboot'", "/d/$(reboot)": "'/d/$(reboot)'", "/d/'`reboot`": `'/d/'\''` + "`reboot`'",
		"/d/é": "'/d/é'", "/d/x\nreboot": "'/d/x\nreboot'",
	} {
		if got := (Place{Path: name}).Word(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// A key of the DNS provider that stands in the settings makes these a secret.
func TestSettingsWithASecret(t *testing.T) {
	file := filepath.Join(t.TempDir(), "relayd.toml")
	if err := os.WriteFile(file, []byte("hostname = \"mx.example.org\"\nstate_dir = \"/nonexistent/state\"\n[acme.dns]\ntoken = \"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(file, 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if list := Check(c); len(list) != 1 || list[0].File != file {
		t.Errorf("%v", list)
	}
}
