package setup

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"relayd/config"
)

func TestHostname(t *testing.T) {
	for name, c := range map[string]struct {
		ptr   []string
		want  string
		asked bool
	}{
		"reverse DNS":    {[]string{"Mail.example.net."}, "mail.example.net", false},
		"the provider's": {[]string{"static.17.2.0.192.provider.example."}, "mx.example.org", true},
		"by dashes":      {[]string{"ip-192-000-002-017.provider.example."}, "mx.example.org", true},
		"the second":     {[]string{"host-2-17.provider.example.", "mx17.example.org."}, "mx17.example.org", false},
		"none":           {nil, "mx.example.org", true},
		"no full name":   {[]string{"localhost."}, "mx.example.org", true},
	} {
		s := newServer(t, false)
		s.opt.Hostname, s.names = "", c.ptr
		p := s.plan()
		if p.Config.Hostname != c.want || slices.Contains(s.asked, "hostname") != c.asked {
			t.Errorf("%s: %s, asked %q", name, p.Config.Hostname, s.asked)
		}
	}
}

func TestNamesThatProvidersMake(t *testing.T) {
	for name, want := range map[string]bool{
		"mx.example.org": false, "vps2.example.org": false, "2.17.example.net": true, "a002x017.example.net": true,
	} {
		if got := providers(name, address4); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	six := netip.MustParseAddr("2001:db8::25")
	if providers("mx0025.example.org", six) || !providers("2001-0db8-0000-0000-0000-0000-0000-0025.example.net", six) {
		t.Error("names of IPv6 addresses")
	}
}

func TestSettingsText(t *testing.T) {
	const example = "# Name.\nhostname = \"x\"\n[listen]\n#http = []\n#https = []\n[acme]\n# http = not a key\n#challenge = \"http-01\"\n#enabled = false\n"
	got, err := settingsText(example, []value{
		{"hostname", "mx"}, {"listen.https", []string{":443", "a"}}, {"acme.challenge", "tls-alpn-01"}, {"acme.enabled", true},
	})
	const want = "# Name.\nhostname = \"mx\"\n[listen]\n#http = []\nhttps = [\":443\", \"a\"]\n[acme]\n# http = not a key\nchallenge = \"tls-alpn-01\"\nenabled = true\n"
	if err != nil || got != want {
		t.Errorf("%v\n%s", err, got)
	}
	if _, err := settingsText(example, []value{{"acme.http", 1}}); err == nil || !strings.Contains(err.Error(), "no setting acme.http") {
		t.Errorf("a key that there is not: %v", err)
	}
}

// A bare machine takes port 80; one with a web server port 443, or the files of that server.
func TestProof(t *testing.T) {
	www := t.TempDir()
	for name, c := range map[string]struct {
		taken   []int
		webroot string
		want    []value
		asked   bool
	}{
		"bare":           {want: []value{{"listen.http", []string{":80"}}}},
		"web server":     {taken: []int{80}, want: []value{{"listen.https", []string{":443"}}, {"acme.challenge", config.ChallengeALPN}}},
		"with TLS":       {taken: []int{80, 443}, want: []value{{"acme.webroot", www}}, asked: true},
		"webroot wanted": {webroot: www, want: []value{{"acme.webroot", www}}},
	} {
		s := newServer(t, false)
		s.taken, s.opt.Webroot, s.answer = c.taken, c.webroot, www
		s.opt.Root = ""
		got, err := (&Plan{opt: s.opt}).proof()
		same := slices.EqualFunc(got.values, c.want, func(a, b value) bool { return a.key == b.key && literal(a.to) == literal(b.to) })
		if err != nil || !same || slices.Contains(s.asked, "webroot") != c.asked {
			t.Errorf("%s: %v %v, asked %q", name, got, err, s.asked)
		}
	}
}

// TestWebrootOfNobody: a folder that no web server has would be made, and prove nothing.
func TestWebrootOfNobody(t *testing.T) {
	s := newServer(t, false)
	s.opt.Root, s.opt.Webroot = "", filepath.Join(t.TempDir(), "html")
	if got, err := (&Plan{opt: s.opt}).proof(); err == nil || !strings.Contains(err.Error(), "there is no folder "+s.opt.Webroot) {
		t.Errorf("%v %v", got, err)
	}
}

func TestWebroot(t *testing.T) {
	s := newServer(t, true).withDomain()
	p := s.setUp()
	p.steps = nil
	p.webroot("/srv/www")
	if err := p.Run(context.Background(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(s.opt.Root, "/srv/www/.well-known/acme-challenge"))
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v %v", info, err)
	}
	if got := s.read("/etc/systemd/system/relayd.service.d/webroot.conf"); got != "[Service]\nReadWritePaths=-/srv/www/.well-known/acme-challenge\n" {
		t.Error(got)
	}
}

func TestPortsOfAnotherMailServer(t *testing.T) {
	for _, port := range []int{25, 465, 587} {
		s := newServer(t, false)
		s.opt.Root, s.taken = "", []int{port}
		if err := (&Plan{opt: s.opt}).portsFree(); err == nil || !strings.Contains(err.Error(), "exim4") {
			t.Errorf("%d: %v", port, err)
		}
	}
}

// In an image the unit is enabled by its link, and nothing is run but useradd.
func TestImage(t *testing.T) {
	s := newServer(t, false).withDomain()
	s.write("/etc/systemd/system/README", "")
	s.setUp()
	to, err := os.Readlink(filepath.Join(s.opt.Root, wanted)) // read inside the image, so it is absolute
	if err != nil || to != "/etc/systemd/system/relayd.service" || !strings.Contains(s.read(to), "ExecStart=/usr/local/bin/relayd -c "+settingsFile+"\n") {
		t.Errorf("the unit %s: %v", to, err)
	}
	if len(s.ran) != 1 || !strings.HasSuffix(s.ran[0], "--prefix "+s.opt.Root+" relayd") {
		t.Errorf("%q", s.ran)
	}
}

func TestUnit(t *testing.T) {
	s := newServer(t, true).withDomain()
	s.write("/usr/bin/relayd", "")
	s.write("/usr/bin/relay-util", "")
	s.fails = "systemctl enable"
	if err := s.plan().Run(context.Background(), func(string) {}); err == nil || !strings.Contains(err.Error(), "journalctl -u relayd") {
		t.Errorf("relayd does not start: %v", err)
	}
	s.fails = ""
	if steps := s.setUp().Steps(); len(steps) != 1 {
		t.Errorf("%q", steps)
	}
	if !slices.Contains(s.ran, "systemctl daemon-reload") || !strings.Contains(s.read("/etc/systemd/system/relayd.service"), "\nExecStart=/usr/bin/relayd -c ") {
		t.Errorf("%q", s.ran)
	}
	before := s.tree()
	if steps := s.setUp().Steps(); len(steps) != 0 {
		t.Errorf("%q", steps)
	}
	s.same(before)
}

// The unit of a package is used, and left alone.
func TestUnitOfAPackage(t *testing.T) {
	s := newServer(t, true).withDomain()
	s.write("/usr/lib/systemd/system/relayd.service", "[Unit]\n")
	s.setUp()
	if exists(filepath.Join(s.opt.Root, "/etc/systemd/system/relayd.service")) || !s.active {
		t.Error("a second unit was written, or the first was not started")
	}
	stays := strings.Join(s.removal(0, false, RemovalOptions{}).Stays, "\n")
	if !strings.Contains(stays, "/usr/lib/systemd/system/relayd.service, of a package") {
		t.Error(stays)
	}
}

// TestRootFollowsNoLinkOfOthers: the folders that root works in belong to others, who may have been broken
// into. What a link of theirs leads to must not become theirs, or open to them.
func TestRootFollowsNoLinkOfOthers(t *testing.T) {
	s := newServer(t, true).withDomain()
	p := s.setUp()
	s.write("/shadow", "secret")
	shadow := filepath.Join(s.opt.Root, "shadow")
	if err := os.Chmod(shadow, 0o600); err != nil {
		t.Fatal(err)
	}
	p.steps = nil
	p.webroot("/srv/www")
	challenges := filepath.Join(s.opt.Root, "/srv/www/.well-known/acme-challenge")
	if err := errors.Join(os.MkdirAll(filepath.Dir(challenges), 0o755), os.Symlink(shadow, challenges)); err != nil {
		t.Fatal(err)
	}
	p.Run(context.Background(), func(string) {}) // whether that is an error or not
	if info, err := os.Stat(shadow); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file behind a link of the web server's user: %v %v", info.Mode(), err)
	}
}

// TestTheSecretIsGivenAwayAndNotWhatALinkLeadsTo: the state folder is the account's.
func TestTheSecretIsGivenAwayAndNotWhatALinkLeadsTo(t *testing.T) {
	s := newServer(t, true).withDomain()
	s.setUp()
	file := filepath.Join(s.opt.Root, "/var/lib/relayd/srs-secrets")
	s.write("/victim", "anything")
	victim := filepath.Join(s.opt.Root, "victim")
	if err := errors.Join(os.Remove(file), os.Symlink(victim, file)); err != nil {
		t.Fatal(err)
	}
	if owned, err := ownedLike(file); err != nil || !owned {
		t.Errorf("%v %v: the owner of the link itself counts", owned, err)
	}
	before, err := os.Stat(victim)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(filepath.Dir(file), 1234, 1234); err == nil { // as root: now it is due
		s.write("/etc/passwd", "root:x:0:0::/:/bin/sh\nrelayd:x:1234:1234::/var/lib/relayd:/bin/false\n")
		s.write("/etc/group", "root:x:0:\nrelayd:x:1234:\n")
		if got := s.setUp().Steps(); len(got) != 1 || !strings.Contains(got[0], "srs-secrets") {
			t.Errorf("%q", got)
		}
	}
	after, err := os.Stat(victim)
	if err != nil || after.Sys().(*syscall.Stat_t).Uid != before.Sys().(*syscall.Stat_t).Uid {
		t.Errorf("it is somebody else's now: %v", err)
	}
}
