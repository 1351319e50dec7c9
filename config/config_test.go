package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"relayd/problem"
)

const host = "hostname = \"mx.example.com\"\n"

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("/etc/relayd/relayd.toml", []byte(text))
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return c
}

func TestHostnameIsEnough(t *testing.T) {
	want := Default()
	want.file = "/etc/relayd/relayd.toml"
	want.Hostname = "mx.example.com"
	if got := mustParse(t, host); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDefaultsPassTheirChecks(t *testing.T) {
	doc := &document{}
	check := func(settings []setting) {
		for _, s := range settings {
			if s.check != nil && s.name != "hostname" {
				s.check(complaints{doc, strings.Split(s.name, ".")})
			}
		}
	}
	check(Default().settings())
	check(DefaultDomain().settings())
	if err := doc.err(); err != nil {
		t.Error(err)
	}
}

func TestStateDirIsFoundInAFileWithMistakes(t *testing.T) {
	const none = "/var/lib/relayd"
	tests := []struct{ text, want string }{
		{host + "state_dir = \"/srv/mail/\"\n", "/srv/mail"},
		{"hostnam = 1\nstate_dir = '/srv/mail' # ours\n[limits]\nrecipients = \"many\"\n", "/srv/mail"},
		{"hostname = mx.example.com\r\n  \"state_dir\" = \"/srv/mail\"\r\n[listen\n", "/srv/mail"},
		{"\ufeffstate_dir = \"/srv/mail\"\nhostname =\n", "/srv/mail"},
		{"state_dir = \"/srv/mail\"\npostmaster = \"\xff\"\n", "/srv/mail"},
		{"state_dir = \"/srv/mail\"\nstate_dir = \"/srv/other\"\n", "/srv/mail"},
		{"hostname = mx\n[listen]\nstate_dir = \"/srv/mail\"\n", none},
		{"[listen]\nstate_dir = \"/srv/mail\"\n", none},
		{"hostname = mx\n# state_dir = \"/srv/mail\"\nstate_dirs = \"/srv/mail\"\n", none},
		{"state_dir = \"srv/mail\"\n", none},
		{"state_dir = \"/" + strings.Repeat("x", maxSocketPath) + "\"\n", none},
		{"state_dir = 5\n", none},
		{"state_dir = /srv/mail\n", none},
		{"", none},
	}
	file := filepath.Join(t.TempDir(), "relayd.toml")
	if got := StateDir(file); got != none {
		t.Errorf("no file: %s", got)
	}
	for _, tt := range tests {
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := StateDir(file); got != tt.want {
			t.Errorf("%q: %s, want %s", tt.text, got, tt.want)
		}
	}
}

func TestPaths(t *testing.T) {
	c := mustParse(t, host+`state_dir = "/srv/mail/"`)
	for _, p := range []struct{ got, want string }{
		{c.Dir(), "/etc/relayd"},
		{c.DomainsDir(), "/etc/relayd/domains"},
		{c.CertsDir(), "/etc/relayd/certs"},
		{c.StateDir, "/srv/mail"},
		{c.ControlSocket(), "/srv/mail/control.sock"},
		{c.QueueDir(), "/srv/mail/queue"},
	} {
		if p.got != p.want {
			t.Errorf("got %s, want %s", p.got, p.want)
		}
	}
}

// TestGood has values that are taken, and what becomes of them.
func TestGood(t *testing.T) {
	for _, tt := range []struct {
		text string
		get  func(*Config) any
		want any
	}{
		{"postmaster = \"Me@Example.ORG\"", func(c *Config) any { return c.Postmaster }, "Me@example.org"},
		{"[listen]\nsmtp = [\"192.0.2.1:25\", \"[2001:db8::1]:25\", \"localhost:26\"]", func(c *Config) any { return len(c.Listen.SMTP) }, 3},
		{"[listen]\nsmtp = [\"127.0.0.1:0\", \"127.0.0.1:0\"]", func(c *Config) any { return len(c.Listen.SMTP) }, 2},
		{"[listen]\nsmtp = [\"systemd:smtp\"]\nsubmission = [\":25\"]", func(c *Config) any { return c.Listen.SMTP }, []string{"systemd:smtp"}},
		{"[limits]\nmessage_size = 65536", func(c *Config) any { return c.Limits.MessageSize }, 64 * KB},
		{"[limits]\nmessage_size = \"1GiB\"", func(c *Config) any { return c.Limits.MessageSize }, GB},
		{"limits.recipients = 1", func(c *Config) any { return c.Limits.Recipients }, 1},
		{"limits = { connections_per_ip = 7 }", func(c *Config) any { return c.Limits.ConnectionsPerIP }, 7},
		{"[dns]\nservers = [\"192.0.2.53\", \"192.0.2.53:5353\", \"2001:db8::53\", \"[2001:db8::53]\", \"[2001:DB8::53]:54\"]",
			func(c *Config) any { return c.DNS.Servers },
			[]string{"192.0.2.53:53", "192.0.2.53:5353", "[2001:db8::53]:53", "[2001:db8::53]:53", "[2001:db8::53]:54"}},
		{"", func(c *Config) any { return c.DNS.Trusted }, TrustAuto},
		{"[dns]\ntrusted = true", func(c *Config) any { return c.DNS.Trusted }, TrustYes},
		{"[dns]\ntrusted = false", func(c *Config) any { return c.DNS.Trusted }, TrustNo},
		{"[dns]\ntrusted = \"auto\"", func(c *Config) any { return c.DNS.Trusted }, TrustAuto},
		{"[outbound]\ntls = { \"Example.ORG.\" = \"verify\", \".B\u00fccher.example\" = \"none\", \"*\" = \"may\" }", func(c *Config) any { return c.Outbound.TLS },
			map[string]string{"example.org": TLSVerify, ".xn--bcher-kva.example": TLSNone, "*": TLSMay}},
		{"[outbound.tls]\n\"google.com\" = \"encrypt\"", func(c *Config) any { return c.Outbound.TLS }, map[string]string{"google.com": TLSEncrypt}},
		{"[outbound]\nsource_ipv4 = \"192.0.2.1\"", func(c *Config) any { return c.Outbound.SourceIPv4 }, netip.MustParseAddr("192.0.2.1")},
		{"[outbound]\nsource_ipv6 = \"2001:DB8:0::1\"", func(c *Config) any { return c.Outbound.SourceIPv6 }, netip.MustParseAddr("2001:db8::1")},
		{"[outbound]\nsource_ipv6 = \"\"", func(c *Config) any { return c.Outbound.SourceIPv6 }, netip.Addr{}},
		{"[outbound]\nsmarthost = \"smtp://mailhub\"", func(c *Config) any { return c.Outbound.Smarthost },
			Smarthost{Scheme: "smtp", Host: "mailhub", Port: 25}},
		{"[outbound.to.\"Bücher.example.\"]\nsmarthost = \"smtp://mailhub\"\n[outbound.to.\"direct.example\"]\nsmarthost = \"\"",
			func(c *Config) any { return c.Outbound.To },
			map[string]Way{"xn--bcher-kva.example": {Smarthost: Smarthost{Scheme: "smtp", Host: "mailhub", Port: 25}}, "direct.example": {}}},
		{"[outbound]\nfrom = { \"x.example\" = { smarthost = \"submissions://u@h\", password_file = \"pw\" } }",
			func(c *Config) any { return c.Outbound.From },
			map[string]Way{"x.example": {Smarthost{Scheme: "submissions", Host: "h", Port: 465, User: "u"}, "pw"}}},
		{"[mailbox]\nlmtp = \"unix:/run/dovecot/lmtp\"", func(c *Config) any { return c.Mailbox.LMTP }, "unix:/run/dovecot/lmtp"},
		{"[mailbox]\nlmtp = \"tcp:[::1]:2424\"", func(c *Config) any { return c.Mailbox.LMTP }, "[::1]:2424"},
		{"[mailbox]\nlmtp = \"dovecot\"", func(c *Config) any { return c.Mailbox.LMTP }, "dovecot:24"},
		{"[queue]\nlifetime = \"1h\"", func(c *Config) any { return c.Queue.Lifetime }, Duration(time.Hour)},
		{"[queue]\nmax_messages = 100", func(c *Config) any { return c.Queue.MaxMessages }, 100},
		{"[queue]\nmax_size = \"10GB\"", func(c *Config) any { return c.Queue.MaxSize }, 10 * GB},
		{"[forward]\nanswer_within = \"0s\"", func(c *Config) any { return c.Forward.AnswerWithin }, Duration(0)},
		{"[forward]\nsrs_domain = \"SRS.bücher.example.\"", func(c *Config) any { return c.Forward.SRSDomain }, "srs.xn--bcher-kva.example"},
		{"[acme]\nenabled = true\nchallenge = \"dns-01\"\nprovider = \"rfc2136\"\n[acme.dns]\nRFC2136_TTL = \"60\"\n\"a.b\" = \"c\"",
			func(c *Config) any { return c.ACME.DNS }, map[string]string{"RFC2136_TTL": "60", "a.b": "c"}},
		{"listen.http = [\":80\"]\nacme.enabled = true", func(c *Config) any { return c.ACME.Challenge }, "http-01"},
		{"auth.bcrypt_cost = 4", func(c *Config) any { return c.Auth.BcryptCost }, 4},
		{"aliases.allow_pipe = true", func(c *Config) any { return c.Aliases.AllowPipe }, true},
		{"log = { level = \"debug\", format = \"json\" }", func(c *Config) any { return c.Log }, Log{"debug", "json", "full"}},
		{"log.privacy = \"no-address\"", func(c *Config) any { return c.Log.Privacy }, "no-address"},
	} {
		if got := tt.get(mustParse(t, host+tt.text)); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s\ngot  %#v\nwant %#v", tt.text, got, tt.want)
		}
	}
	if c := mustParse(t, "\ufeffhostname = \"MX.Example.com.\"\r\n"); c.Hostname != "mx.example.com" {
		t.Errorf("hostname %q is not in normal form", c.Hostname)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ name, content, want string }{
		{"missing.toml", "", `FILE: no such file or directory: make it with one line in it, hostname = "mx.example.com" with the name of this server, or name another one with -c`},
		{"large.toml", strings.Repeat("#\n", MaxFile), "FILE: the file is larger than 1MB"},
		{"latin1.toml", "# \n# caf\xe9\n", "FILE:2: the file is not UTF-8 from here on: save it as UTF-8"},
		{"utf16.toml", "\xff\xfeh\x00", "FILE:1: the file is not UTF-8 from here on: save it as UTF-8"},
		{"empty.toml", " \n", `FILE:1: hostname is missing: write the full name of this server at the top, like hostname = "mx.example.com"`},
	} {
		file := filepath.Join(dir, tt.name)
		if tt.name != "missing.toml" {
			write(t, file, tt.content)
		}
		c, err := Load(file)
		if want := strings.ReplaceAll(tt.want, "FILE", file); c != nil || err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
	if _, err := Load(dir); err == nil || err.Error() != dir+": is a directory" {
		t.Errorf("a folder: %v", err)
	}
}

func TestPasswordFile(t *testing.T) {
	for _, tt := range []struct{ content, want, err string }{
		{"s3cret word\r\n", "s3cret word", ""},
		{"s3cret", "s3cret", ""},
		{"\n\n", "", "DIR/pw is empty: write the password into it"},
		{"one\ntwo\n", "", "DIR/pw has more than one line: the password alone must stand in it"},
		{strings.Repeat("x", 5000), "", "DIR/pw is larger than 4KB: that is no password"},
		{"MISSING", "", "DIR/pw: no such file or directory"},
	} {
		dir := t.TempDir()
		file := filepath.Join(dir, "relayd.toml")
		write(t, file, host+"[outbound]\nsmarthost = \"submission://me@gmail.com@smtp.gmail.com\"\npassword_file = \"pw\"\n")
		if tt.content != "MISSING" {
			write(t, filepath.Join(dir, "pw"), tt.content)
		}
		c, err := Load(file)
		if tt.err == "" {
			if err != nil || c.Outbound.Smarthost.Password != tt.want {
				t.Errorf("%q: %v %v", tt.content, c, err)
			}
			continue
		}
		want := file + ":4: outbound.password_file: " + strings.ReplaceAll(tt.err, "DIR", dir)
		if err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

func TestPasswordFilesOfDomains(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "relayd.toml")
	text := host + "[outbound.to.\"a.example\"]\nsmarthost = \"submission://u@h\"\npassword_file = \"to\"\n" +
		"[outbound.from.\"b.example\"]\nsmarthost = \"submission://v@h\"\npassword_file = \"from\"\n"
	write(t, file, text)
	write(t, filepath.Join(dir, "to"), "one\n")
	if _, err := Load(file); err == nil || err.Error() != file+`:7: outbound.from."b.example".password_file: `+dir+"/from: no such file or directory" {
		t.Error(err)
	}
	write(t, filepath.Join(dir, "from"), "two\n")
	c, err := Load(file)
	if err != nil || c.Outbound.To["a.example"].Smarthost.Password != "one" || c.Outbound.From["b.example"].Smarthost.Password != "two" {
		t.Errorf("%+v %v", c, err)
	}
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", host, "hostname = 5", host + "[limits]\nrecipents = 1\n", host + "[[limits]]\n", host + "a.\"b\\n\".'c' = '''\nx'''\n",
		host + "[outbound]\nsmarthost = \"submission://me%40x@[::1]:587\"\npassword_file = \"pw\"\n",
		host + "[outbound.to.\"A.example\"]\nsmarthost = \"smtp://h\"\n[mailbox]\nlmtp = \"unix:/x\"\n",
		host + "[dns]\ntrusted = true\n[outbound.tls]\n\"*\" = \"may\"\n\".x.example\" = \"verify\"\n",
		host + "[filter]\ndnsbl = [\"Zen.example\"]\nrspamd = \"http://h:1/\"\nmilter = [\"inet:[::1]:1\", \"unix:/x\"]\n",
		host + "[mailbox]\nlmtp = \"tcp:[::1]:24\"\n", host + "outbound.from = { \"b.example\" = { smarthost = \"\" } }\n",
		host + "[dns]\nservers = [\"::1\",\n \"1.2.3.4:5\"]\n[acme.dns]\nx = \"y\"\n", "\ufeff" + host,
		host + "limits = { message_size = \"1GB\", \"connections\" = 1_000 }\n[listen]\nsmtp = [\"[::]:25\", \"systemd:x\"]\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f", data)
		checkProblems(t, data, err)
		if err != nil {
			return
		}
		// What passed once passes again: normal forms are stable.
		again := &document{given: map[string]bool{}}
		for _, s := range c.settings() {
			if s.check != nil {
				s.check(complaints{again, strings.Split(s.name, ".")})
			}
		}
		if again.err() != nil || c.Outbound.Smarthost.Password != "" {
			t.Errorf("%q: %v", data, again.err())
		}
	})
}

// checkProblems checks that each problem names a line that exists and takes one line itself.
func checkProblems(t *testing.T, data []byte, err error) {
	t.Helper()
	if err == nil {
		return
	}
	list, ok := err.(problem.List)
	if !ok || len(list) == 0 {
		t.Fatalf("%q: %#v is no list of problems", data, err)
	}
	for _, p := range list {
		if p.Line < 0 || p.Line > 1+strings.Count(string(data), "\n") || p.Reason == "" || strings.ContainsAny(p.Reason, "\r\n") {
			t.Errorf("%q: problem %q", data, p)
		}
	}
}
