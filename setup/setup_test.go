package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayd/config"
	"relayd/domains"
	"relayd/etc"
	"relayd/internal/testnet"
	"relayd/users"
)

// A server is a fake machine with a root of its own.
type server struct {
	t      *testing.T
	opt    Options
	taken  []int    // ports
	names  []string // in reverse DNS
	active bool     // the unit
	ran    []string // programs, with their arguments
	fails  string   // a program that fails
	asked  []string // flags
	answer string
}

var address4 = netip.MustParseAddr("192.0.2.17")

// newServer makes a bare machine. It is the machine itself that is set up unless image is true.
func newServer(t *testing.T, booted bool) *server {
	t.Helper()
	s := &server{t: t, names: []string{"mx.example.org."}}
	s.opt = Options{
		Root: t.TempDir(), Domain: "example.org", Forward: "me@gmail.com", Hostname: "mx.example.org", Programs: t.TempDir(),
		World: World{
			Addresses: func() ([]netip.Addr, error) { return []netip.Addr{address4}, nil },
			PTR:       func(context.Context, netip.Addr) ([]string, error) { return s.names, nil },
			Free:      func(port int) bool { return !slices.Contains(s.taken, port) },
			Booted:    booted,
			Run:       s.run,
		},
		Ask: func(q Question) (string, error) {
			s.asked = append(s.asked, q.Flag)
			if s.answer == "" {
				return q.Default, nil
			}
			return s.answer, nil
		},
	}
	s.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\n")
	s.write("/etc/group", "root:x:0:\n")
	for _, name := range []string{"relayd", "relay-util"} {
		if err := os.WriteFile(filepath.Join(s.opt.Programs, name), []byte("#!"+name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// run plays useradd and systemctl. The account has the numbers of who runs the test.
func (s *server) run(_ context.Context, program string, args ...string) error {
	command := strings.Join(append([]string{program}, args...), " ")
	s.ran = append(s.ran, command)
	switch {
	case s.fails != "" && strings.HasPrefix(command, s.fails):
		return errors.New("it fails")
	case program == "useradd":
		s.write("/etc/passwd", fmt.Sprintf("root:x:0:0::/:/bin/sh\nrelayd:x:%d:%d::/var/lib/relayd:/bin/false\n", os.Getuid(), os.Getgid()))
		s.write("/etc/group", fmt.Sprintf("root:x:0:\nrelayd:x:%d:\n", os.Getgid()))
	case strings.HasPrefix(command, "systemctl --quiet is-") && !s.active:
		return errors.New("it is not")
	case strings.HasPrefix(command, "systemctl enable"):
		s.active = true
	}
	return nil
}

// withDomain gives it the folder of the domain with an empty key, for to make one takes its time.
func (s *server) withDomain() *server {
	for _, name := range []string{"users", "aliases", "dkim/r1.pem"} {
		s.write("/etc/relayd/domains/example.org/"+name, "")
	}
	return s
}

func (s *server) write(name, text string) {
	s.t.Helper()
	file := filepath.Join(s.opt.Root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.opt.Root, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

func (s *server) plan() *Plan {
	s.t.Helper()
	p, err := New(context.Background(), s.opt)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// setUp makes everything.
func (s *server) setUp() *Plan {
	s.t.Helper()
	p := s.plan()
	if err := p.Run(context.Background(), func(string) {}); err != nil {
		s.t.Fatal(err)
	}
	return p
}

// tree is every file and folder, with mode, time and content.
func (s *server) tree() map[string]string {
	s.t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(s.opt.Root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var text []byte
		if info.Mode().IsRegular() {
			text, err = os.ReadFile(path)
		}
		all[path] = fmt.Sprint(info.Mode(), info.ModTime(), string(text))
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

func (s *server) same(before map[string]string) {
	s.t.Helper()
	after := s.tree()
	for path, is := range after {
		if before[path] != is {
			s.t.Errorf("%s has changed", path)
		}
	}
	if len(after) != len(before) {
		s.t.Errorf("%d files, there were %d", len(after), len(before))
	}
}

func TestFromZero(t *testing.T) {
	s := newServer(t, false)
	before := s.tree()
	planned := s.plan().Steps()
	s.same(before)
	p := s.setUp()
	if len(planned) != 10 {
		t.Errorf("the plan was %q", planned)
	}
	conf, err := config.Load(filepath.Join(s.opt.Root, settingsFile))
	if err != nil {
		t.Fatal(err)
	}
	if conf.Hostname != "mx.example.org" || conf.Postmaster != "me@gmail.com" || conf.Limits.UserMessagesPerHour != 2000 ||
		!conf.ACME.Enabled || conf.ACME.Challenge != config.ChallengeHTTP || !slices.Equal(conf.Listen.HTTP, []string{":80"}) {
		t.Errorf("settings: %+v", conf)
	}
	if s.read("/etc/relayd/domains/example.org/aliases") != "*: me@gmail.com\n" {
		t.Error("the catch-all is not there")
	}
	list := s.read("/etc/relayd/domains/example.org/users")
	table, err := users.Parse("users", strings.NewReader(list))
	if err != nil || len(table.All()) != 1 || table.All()[0].Name != "app" || p.Password == "" {
		t.Errorf("users: %s %v", list, err)
	}
	for path, is := range s.tree() {
		if strings.Contains(is, p.Password) {
			t.Errorf("the password stands in %s", path)
		}
	}
	for name, mode := range map[string]fs.FileMode{
		"/etc/relayd": 0o750, "/etc/relayd/relayd.toml": 0o640, "/etc/relayd/domains/example.org/dkim/relay1.pem": 0o600,
		"/var/lib/relayd": 0o750, "/var/lib/relayd/srs-secrets": 0o600, "/usr/local/bin/relayd": 0o755,
	} {
		info, err := os.Stat(filepath.Join(s.opt.Root, name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v %v, want %v", name, info, err, mode)
		}
	}
}

func TestASecondRunChangesNothing(t *testing.T) {
	s := newServer(t, false).withDomain()
	s.setUp()
	before := s.tree()
	for _, opt := range []func(){
		func() {}, func() { s.opt.Forward, s.opt.Hostname = "", "" }, func() { s.opt.Hostname = "MX.example.org." },
		func() { s.opt.Forward = "other@gmail.com" }, // what a person may have written stays
	} {
		opt()
		s.ran = nil
		p := s.setUp()
		if steps := p.Steps(); len(steps) != 0 || p.Password != "" || len(s.ran) != 0 || len(s.asked) != 0 {
			t.Errorf("%q %q, asked %q", steps, s.ran, s.asked)
		}
	}
	s.same(before)
}

func TestASecondDomain(t *testing.T) {
	s := newServer(t, false).withDomain()
	s.setUp()
	settings := s.read(settingsFile)
	s.opt.Domain, s.opt.Forward, s.opt.User = "bücher.example", "you@gmail.com", "shop"
	if steps := s.setUp().Steps(); len(steps) != 2 {
		t.Errorf("%q", steps)
	}
	if s.read(settingsFile) != settings || s.read("/etc/relayd/domains/xn--bcher-kva.example/aliases") != "*: you@gmail.com\n" {
		t.Error("the second domain is not beside the first")
	}
	s.opt.Domain, s.opt.Forward, s.opt.User = "third.example", "me@example.org", ""
	if _, err := New(context.Background(), s.opt); err == nil || !strings.Contains(err.Error(), "hosted here too") {
		t.Errorf("forwarded to a hosted domain: %v", err)
	}
}

// Whatever step fails, the next run goes on, and the end is the same.
func TestGoesOnAfterAnError(t *testing.T) {
	bare := func() *server { return newServer(t, true).withDomain() }
	steps := bare().plan().Steps()
	if len(steps) != 11 {
		t.Errorf("%q", steps)
	}
	for i := 0; i < len(steps); i += testnet.Stride(3) {
		s := bare()
		p := s.plan()
		p.steps[i].do = func(context.Context) error { return errors.New("the disk is full") }
		made := 0
		err := p.Run(context.Background(), func(string) { made++ })
		if err == nil || made != i || !strings.Contains(err.Error(), "run the same command again") {
			t.Errorf("%s: %d were made, %v", steps[i], made, err)
		}
		rest := s.setUp()
		if len(rest.Steps()) != len(steps)-i {
			t.Errorf("after %s went wrong: %q", steps[i], rest.Steps())
		}
		if again := s.plan().Steps(); len(again) != 0 {
			t.Errorf("after %s went wrong, still missing: %q", steps[i], again)
		}
	}
}

func TestTheInstalledExampleCountsAsNone(t *testing.T) {
	s := newServer(t, false)
	s.withDomain().write(settingsFile, etc.Settings)
	s.setUp()
	if conf, err := config.Load(filepath.Join(s.opt.Root, settingsFile)); err != nil || conf.Hostname != "mx.example.org" {
		t.Errorf("%v %v", conf, err)
	}
	s.write(settingsFile, "hostname = 7\n")
	if _, err := New(context.Background(), s.opt); err == nil || !strings.Contains(err.Error(), "mend them first") {
		t.Errorf("broken settings: %v", err)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*server)
		want   string
	}{
		"no domain":   {func(s *server) { s.opt.Domain = "[192.0.2.1]" }, "not a domain"},
		"one label":   {func(s *server) { s.opt.Domain = "org" }, "not a domain"},
		"circle":      {func(s *server) { s.opt.Forward = "me@Example.org" }, "circle"},
		"forward":     {func(s *server) { s.opt.Forward = "me" }, "--forward: "},
		"other user":  {func(s *server) { s.opt.User = "me@example.net" }, "not an address of example.org"},
		"hostname":    {func(s *server) { s.opt.Hostname = "mx" }, "--hostname: "},
		"webroot":     {func(s *server) { s.opt.Webroot = "html" }, "no absolute path"},
		"no programs": {func(s *server) { s.opt.Programs = t.TempDir() }, "go build"},
		"another name": {func(s *server) {
			s.write(settingsFile, "hostname = \"mx.example.org\"\n")
			s.opt.Hostname = "mx2.example.org"
		}, "change it there"},
		"late webroot":    {func(s *server) { s.write(settingsFile, "hostname = \"mx.example.org\"\n"); s.opt.Webroot = "/var/www" }, "first setup"},
		"users are gone":  {func(s *server) { s.withDomain(); s.remove("/etc/relayd/domains/example.org/users") }, "put the users back"},
		"broken aliases":  {func(s *server) { s.withDomain(); s.write("/etc/relayd/domains/example.org/aliases", "nonsense\n") }, "mend them first"},
		"in the way":      {func(s *server) { s.write("/etc/relayd/domains/example.org", "") }, "in the way"},
		"user not a name": {func(s *server) { s.opt.User = `"a:b"` }, "--user: "},
	} {
		s := newServer(t, false)
		c.change(s)
		if _, err := New(context.Background(), s.opt); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func (s *server) remove(name string) {
	s.t.Helper()
	if err := os.Remove(filepath.Join(s.opt.Root, name)); err != nil {
		s.t.Fatal(err)
	}
}

func TestWhatAPersonChangedIsCompletedOnly(t *testing.T) {
	s := newServer(t, false).withDomain()
	s.setUp()
	s.write("/etc/relayd/domains/example.org/aliases", "# mine\nshop: you@gmail.com\n")
	s.remove("/etc/relayd/domains/example.org/dkim/r1.pem")
	if steps := s.setUp().Steps(); len(steps) != 2 {
		t.Errorf("%q", steps)
	}
	if got := s.read("/etc/relayd/domains/example.org/aliases"); !strings.HasPrefix(got, "# mine\nshop: you@gmail.com\n") || !strings.HasSuffix(got, "*: me@gmail.com\n") {
		t.Errorf("aliases:\n%s", got)
	}
	folders, err := domains.Folders(filepath.Join(s.opt.Root, "/etc/relayd/domains"))
	if err != nil || len(folders) != 1 {
		t.Errorf("%v %v", folders, err)
	}
}
