package domains

import (
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"relayd/address"
)

func TestLoad(t *testing.T) {
	h := newHost(t)
	h.write("b.example/aliases", "*: you@else.example\n")
	h.write("A.Example/users", "ann:"+userHash+"\n")
	h.write("A.Example/aliases", "info: me@else.example\n")
	h.write("A.Example/domain.toml", "suffix_separators = \"-\"\n")
	h.write("A.Example/dkim/s1.pem", pem1())
	h.write("A.Example/dkim/README", "no key")
	h.write("A.Example/aliases~", "no aliases")
	h.write("README", "no domain")
	h.write(".git/aliases", "no domain")
	s := h.open()
	h.wantProblems(s.Problems())
	h.wantLeads(s, "info-tag@a.example", "me@else.example")
	h.wantLeads(s, "info+tag@a.example", "550")
	h.wantLeads(s, "x@b.example", "you@else.example")
	h.wantLeads(s, "x@c.example", "550")
	set := s.Current()
	if u, ok := set.Get("a.example").Users.Lookup("ann"); !ok || u.Name != "ann" {
		t.Errorf("%+v %v", u, ok)
	}
	if got := selectors(s, "a.example"); got != "s1" {
		t.Errorf("keys: %q", got)
	}
	var names []string
	for _, d := range set.All() {
		names = append(names, d.Name)
	}
	if !slices.Equal(names, []string{"a.example", "b.example"}) {
		t.Errorf("hosted: %q", names)
	}
	h.wantProblems(s.Warnings(), "b.example: no DKIM key")
}

func TestATransactionSeesOneState(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: one@else.example\n")
	s := h.open()
	before := s.Current()
	h.write("a.example/aliases", "x: two@else.example\n")
	s.Reload()
	h.wantLeads(s, "x@a.example", "two@else.example")
	if got := before.Get("a.example").Aliases.Rules()[0].String(); got != "x: one@else.example" {
		t.Errorf("an old Set now says %s", got)
	}
}

func TestNames(t *testing.T) {
	tests := []struct {
		folder, domain string // domain: "" when it must be a problem
	}{
		{"example.org", "example.org"},
		{"EXAMPLE.org", "example.org"},
		{"bücher.example", "xn--bcher-kva.example"},
		{"BÜCHER.example", "xn--bcher-kva.example"},
		{"bu\u0308cher.example", "xn--bcher-kva.example"},
		{"xn--bcher-kva.example", "xn--bcher-kva.example"},
		{"localhost", "localhost"},
		{"192.0.2.1", ""},
		{"[192.0.2.1]", ""},
		{"example.org~", ""},
		{"exam ple.org", ""},
		{"lost+found", ""},
		{"a@example.org", ""},
		{"-x.org", ""},
		{"a\nb.org", ""},
	}
	for _, tt := range tests {
		t.Run(tt.folder, func(t *testing.T) {
			h := newHost(t)
			h.write(tt.folder+"/aliases", "x: y@else.example\n")
			s := h.open()
			if tt.domain == "" {
				h.wantProblems(s.Problems(), "must have the name of a domain")
				if n := len(s.Current().All()); n != 0 {
					t.Errorf("%d domains", n)
				}
				return
			}
			h.wantProblems(s.Problems())
			h.wantLeads(s, "x@"+tt.domain, "y@else.example")
			if folders, err := Folders(h.dir); err != nil || folders[tt.domain] != h.path(tt.folder) {
				t.Errorf("Folders: %v, %v", folders, err)
			}
		})
	}
}

func TestOneDomainInTwoFolders(t *testing.T) {
	h := newHost(t)
	h.write("Example.org/aliases", "x: one@else.example\n")
	h.write("example.org/aliases", "x: two@else.example\n")
	s := h.open()
	h.wantProblems(s.Problems(), "example.org: this is the same domain as "+h.path("Example.org"))
	h.wantLeads(s, "x@example.org", "one@else.example")
}

func TestLinkedFolders(t *testing.T) {
	h := newHost(t)
	elsewhere := t.TempDir()
	h.link(elsewhere+"/a", "a.example")
	s := h.open()
	h.wantProblems(s.Problems(), "a.example: the folder cannot be read")
	h.wantLeads(s, "x@a.example", "451")

	if err := os.Mkdir(elsewhere+"/a", 0o755); err != nil {
		t.Fatal(err)
	}
	h.write("a.example/aliases", "x: y@else.example\n")
	h.wantProblems(s.Reload())
	h.wantLeads(s, "x@a.example", "y@else.example")

	// As when a disk is not mounted: what was known stays in force, now and after a restart.
	if err := os.RemoveAll(elsewhere + "/a"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h.wantProblems(s.Reload(), "a.example: the folder cannot be read")
		h.wantLeads(s, "x@a.example", "y@else.example")
		s = h.open()
	}
	h.remove("a.example")
	h.wantProblems(s.Reload())
	h.wantLeads(s, "x@a.example", "550")
}

func TestFolderOfTheDomainsCannotBeRead(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@else.example\n")
	h.write("b.example/aliases", "no aliases\n")
	s := h.open()
	if err := os.Rename(h.dir, h.dir+".away"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		h.wantProblems(s.Reload(), "nothing is changed", "b.example/aliases:1")
		h.wantLeads(s, "x@a.example", "y@else.example")
		h.wantLeads(s, "x@b.example", "451")
	}
	s = h.open()
	h.wantProblems(s.Problems(), "its last good copy is used")
	h.wantLeads(s, "x@a.example", "y@else.example")
	if err := os.Rename(h.dir+".away", h.dir); err != nil {
		t.Fatal(err)
	}
	h.wantProblems(s.Reload(), "b.example/aliases:1")
}

// TestNoLastGoodCopyIsNamedWhereThereIsNone: -check, which keeps none, said that it was used.
func TestNoLastGoodCopyIsNamedWhereThereIsNone(t *testing.T) {
	file := t.TempDir() + "/domains"
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := Open(Options{Dir: file, Log: slog.New(slog.DiscardHandler)})
	if p := s.Problems(); len(p) != 1 || !strings.Contains(p[0].Reason, "cannot be read: ") {
		t.Errorf("%v", p)
	}
}

func TestNothingHostedYet(t *testing.T) {
	h := newHost(t)
	if s := h.open(); len(s.Problems()) > 0 || len(s.Warnings()) > 0 {
		t.Errorf("%v, %v", s.Problems(), s.Warnings())
	}
	h.remove("")
	s := h.open()
	h.wantProblems(s.Problems())
	h.wantProblems(s.Warnings(), "no domain is hosted")
	if folders, err := Folders(h.dir); len(folders) > 0 || err != nil {
		t.Errorf("Folders: %v, %v", folders, err)
	}
}

// broken are files that do not parse, and what is said about them.
var broken = map[string][2]string{
	fileAliases:  {"x: good@else.example\nx y z\n", "a.example/aliases:2"},
	fileUsers:    {"ann:hunter2\n", "a.example/users:1"},
	fileSettings: {"\nsufix = 1\n", "a.example/domain.toml:2"},
}

// A domain that was in force without a file stays in force without it while a new one is broken, also
// after a restart; the file counts once it is right.
func TestNewBrokenFileInADomainInForce(t *testing.T) {
	for file, broken := range map[string]string{"users": "no user\n", "domain.toml": "sufix = 1\n"} {
		h := newHost(t)
		h.write("a.example/aliases", "x: y@else.example\n")
		s := h.open()
		h.write("a.example/"+file, broken)
		if list := s.Reload(); len(list) != 1 || !strings.HasSuffix(list[0].File, file) {
			t.Errorf("%s: %v", file, list)
		}
		h.wantLeads(s, "x@a.example", "y@else.example")
		s = h.open()
		h.wantLeads(s, "x@a.example", "y@else.example")
		h.write("a.example/users", "me:"+userHash+"\n")
		h.write("a.example/domain.toml", "suffix_separators = \"-\"\n")
		s.Reload()
		h.wantLeads(s, "x-1@a.example", "y@else.example")
		if d := s.Current().Get("a.example"); len(d.Users.All()) != 1 {
			t.Errorf("%s: %d users after the mend", file, len(d.Users.All()))
		}
	}
}

func TestBrokenFileWithoutACopy(t *testing.T) {
	for name, b := range broken {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.write("a.example/"+name, b[0])
			h.write("b.example/aliases", "x: y@else.example\n")
			for range 2 {
				s := h.open()
				h.wantProblems(s.Problems(), b[1])
				h.wantLeads(s, "x@a.example", "451")
				h.wantLeads(s, "x@b.example", "y@else.example")
			}
		})
	}
}

func TestLastGoodVersionStaysInForce(t *testing.T) {
	good := map[string]string{fileAliases: "x: y@else.example\n", fileUsers: "ann:" + userHash + "\n", fileSettings: "drop_characters = \"_\"\n"}
	bad := map[string]func(h *host, name string){
		"broken":      func(h *host, name string) { h.write("a.example/"+name, broken[name][0]) },
		"vanished":    func(h *host, name string) { h.remove("a.example/" + name) },
		"a folder":    func(h *host, name string) { h.remove("a.example/" + name); h.write("a.example/"+name+"/x", "") },
		"a dead link": func(h *host, name string) { h.remove("a.example/" + name); h.link("nowhere", "a.example/"+name) },
		"a pipe": func(h *host, name string) {
			h.remove("a.example/" + name)
			if err := syscall.Mkfifo(h.path("a.example/"+name), 0o600); err != nil {
				h.Fatal(err)
			}
		},
		"far too large": func(h *host, name string) {
			if err := os.Truncate(h.path("a.example/"+name), maxFile+1); err != nil {
				h.Fatal(err)
			}
		},
	}
	for name := range good {
		for how, spoil := range bad {
			t.Run(name+" is "+how, func(t *testing.T) {
				h := newHost(t)
				for name, text := range good {
					h.write("a.example/"+name, text)
				}
				s := h.open()
				h.wantProblems(s.Problems())
				spoil(h, name)
				s.Reload()
				for _, when := range []string{"in memory", "after a restart", "after two"} {
					h.wantProblems(s.Problems(), "a.example/"+name)
					h.wantLeads(s, "_x@a.example", "y@else.example")
					if _, ok := s.Current().Get("a.example").Users.Lookup("ann"); !ok {
						t.Errorf("the user is gone, %s", when)
					}
					s = h.open()
				}
				h.remove("a.example/" + name)
				h.write("a.example/"+name, "")
				h.wantProblems(s.Reload())
			})
		}
	}
}

// An empty file means the same as none.
func TestEmptyFileVanishes(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@else.example\n")
	h.write("a.example/users", "")
	s := h.open()
	h.remove("a.example/users")
	h.wantProblems(s.Reload())
	s = h.open()
	h.wantProblems(s.Problems())
	h.write("a.example/users", "ann\n")
	h.wantProblems(s.Reload(), "a.example/users:1")
	h.wantLeads(s, "x@a.example", "y@else.example")
}

func TestLogTellsEachProblemOnce(t *testing.T) {
	h := newHost(t)
	h.write("a.example/aliases", "x: y@else.example\n")
	s := h.open()
	h.write("a.example/aliases", "x y z\n")
	for range 3 {
		s.Reload()
	}
	if n := strings.Count(h.log.String(), "file not in force"); n != 1 {
		t.Errorf("told %d times:\n%s", n, h.log.String())
	}
	h.write("a.example/aliases", "x: z@else.example\n")
	s.Reload()
	for _, want := range []string{"line=1", "all domain files are in force again", "files=[" + h.path("a.example/aliases") + "]"} {
		if !strings.Contains(h.log.String(), want) {
			t.Errorf("the log has no %s:\n%s", want, h.log.String())
		}
	}
}

func TestManyDomains(t *testing.T) {
	const many = 1000
	h := newHost(t)
	h.good = ""
	for i := range many {
		h.write(fmt.Sprintf("d%d.example/aliases", i), fmt.Sprintf("x: x@d%d.example\n", i+1))
		h.write(fmt.Sprintf("d%d.example/dkim/s.pem", i), pem1())
		if i%10 == 9 {
			h.write(fmt.Sprintf("d%d.example/aliases", i), "x: y@else.example\n")
		}
	}
	s := h.open()
	h.wantProblems(s.Problems())
	h.wantLeads(s, "x@d990.example", "y@else.example")
	one := s.Current().Get("d0.example").Keys[0]
	s.Reload()
	if s.Current().Get("d0.example").Keys[0] != one {
		t.Error("keys that have not changed are parsed at each load")
	}
	if len(h.log.String()) > 5000 {
		t.Errorf("a log of %d bytes", h.log.Len())
	}
}

func BenchmarkReload(b *testing.B) {
	h := newHost(new(testing.T))
	h.good, h.dir = "", b.TempDir()
	for i := range 1000 {
		h.write(fmt.Sprintf("d%d.example/users", i), "ann:"+userHash+"\n")
		h.write(fmt.Sprintf("d%d.example/aliases", i), "*: me@else.example\n")
		h.write(fmt.Sprintf("d%d.example/dkim/s.pem", i), pem1())
	}
	s := h.open()
	b.Run("load", func(b *testing.B) {
		for b.Loop() {
			s.Reload()
		}
	})
	b.Run("look", func(b *testing.B) {
		for b.Loop() {
			fingerprint(h.dir)
		}
	})
}

// Who has a mailbox, and that a user who keeps a copy and forwards makes no circle.
func TestMailboxes(t *testing.T) {
	h := newHost(t)
	h.write("a.test/users", "ann:"+userHash+"\noff:!"+userHash+"\n")
	h.write("a.test/aliases", "ann: ann, ann@gmail.test\n")
	h.write("b.test/users", "bob:"+userHash+"\n")
	h.write("b.test/domain.toml", "mailbox = false\n")
	h.write("c.test/aliases", "x: y@z.test\n")
	open := func(mailboxes bool) *Store {
		return Open(Options{Dir: h.dir, Mailboxes: mailboxes, Log: slog.New(slog.DiscardHandler)})
	}
	s := open(true)
	if p := s.Problems(); len(p) > 0 {
		t.Error(p)
	}
	for name, want := range map[string]bool{
		"ann@a.test": true, "off@a.test": true, "nobody@a.test": false, "bob@b.test": false, "x@c.test": false, "ann@d.test": false,
	} {
		local, domain, _ := strings.Cut(name, "@")
		if got := s.Current().HasMailbox(address.Address{Local: local, Domain: domain}); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	s = open(false)
	if s.Current().HasMailbox(address.Address{Local: "ann", Domain: "a.test"}) {
		t.Error("a mailbox without a mailbox server")
	}
	if p := s.Problems(); len(p) != 1 || !strings.Contains(p[0].Reason, "circle") {
		t.Error(p)
	}
}
