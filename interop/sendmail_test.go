//go:build interop

package interop

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"relayd/internal/sink"
)

// nobody is a user of every Debian that is not root.
var nobody = &syscall.Credential{Uid: 65534, Gid: 65534}

// newSendmailSite makes a world that takes mail of local users, with a link named sendmail.
func newSendmailSite(t *testing.T, settings string) (*site, *sink.Sink, string) {
	t.Helper()
	s, snk := newWorld(t, sink.Options{}, "[sendmail]\ndomain = \"example.test\"\n"+settings)
	for _, dir := range []string{s.dir, binDir} { // others have to pass
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := s.path("sendmail")
	if err := os.Symlink(program(t, "relay-util"), link); err != nil {
		t.Fatal(err)
	}
	return s, snk, link
}

// sendmail runs it as a user, nil for root, with arguments in one string.
func (s *site) sendmail(link string, as *syscall.Credential, args, input string) (stderr string, code int) {
	s.t.Helper()
	cmd := exec.Command(link, append(strings.Fields(args), "-C", s.config())...)
	if as != nil { // who cannot read the settings either: the folder's default is not this site's
		if err := os.Chmod(s.config(), 0o644); err != nil {
			s.t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	}
	cmd.Args = append([]string{link, "-C", s.config()}, strings.Fields(args)...)
	var errs bytes.Buffer
	cmd.Stdin, cmd.Stderr = strings.NewReader(input), &errs
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		s.t.Fatal(err)
	}
	return errs.String(), cmd.ProcessState.ExitCode()
}

func (s *site) mustSendmail(link string, as *syscall.Credential, args, input string) {
	s.t.Helper()
	if errs, code := s.sendmail(link, as, args, input); code != 0 {
		s.t.Fatalf("sendmail %s exits with %d: %s", args, code, errs)
	}
}

// TestSendmail: what cron, PHP and scripts do, as root and as another user, with the relay up.
func TestSendmail(t *testing.T) {
	s, snk, link := newSendmailSite(t, "users = { nobody = [\"web@example.test\"] }\n")
	s.start()
	for n, c := range []struct {
		as          *syscall.Credential
		args, input string
		sender, to  string
		holds       []string
	}{
		{nil, "root", "hi\n", "root@example.test", "you@mailbox.test", []string{"From: root@example.test\r\n", "\r\n\r\nhi\r\n"}},
		{nil, "-FCronDaemon -i -odi -oem -oi -t", "From: root (Cron Daemon)\nTo: root\nSubject: Cron\n\n.\r\nprogress\rdone\n",
			"root@example.test", "you@mailbox.test", []string{"From: root@example.test (Cron Daemon)\r\n", "To: root@example.test\r\n", "\r\n\r\n.\r\nprogress\r\ndone\r\n"}},
		{nobody, "-t -i", "To: a@elsewhere.test\r\nSubject: Hi\r\nFrom: Web <web@example.test>\r\nBcc: a@elsewhere.test\r\n\r\ntext", "nobody@example.test", "a@elsewhere.test",
			[]string{"From: Web <web@example.test>\r\n", "\r\n\r\ntext\r\n"}},
		{nobody, "-f web@example.test -- a@elsewhere.test", "Subject: dot\n\nfirst\n.\nsecond\n", "web@example.test", "a@elsewhere.test",
			[]string{"From: web@example.test\r\n", "\r\n\r\nfirst\r\n"}},
	} {
		s.mustSendmail(link, c.as, c.args, c.input)
		got := arrived(t, snk, n+1)[n]
		if len(got.Rcpts) != 1 || got.Rcpts[0] != c.to || c.to == "a@elsewhere.test" && got.From != c.sender {
			t.Errorf("sendmail %s: from %s to %v", c.args, got.From, got.Rcpts)
		}
		for _, want := range append(c.holds, "DKIM-Signature: ", "Message-ID: ", "Date: ") {
			if !strings.Contains(string(got.Data), want) {
				t.Errorf("sendmail %s: there is no %q in\n%s", c.args, want, got.Data)
			}
		}
		if strings.Contains(string(got.Data), "Bcc") || strings.Contains(string(got.Data), "second") {
			t.Errorf("sendmail %s: too much in\n%s", c.args, got.Data)
		}
	}
	for _, c := range []struct {
		as          *syscall.Credential
		args, input string
		code        int
		says        string
	}{
		{nobody, "-t", "From: app@example.test\nTo: a@elsewhere.test\n\n", 77, "may not send as <app@example.test>"},
		{nobody, "-t", "From: x@elsewhere.test\nTo: a@elsewhere.test\n\n", 77, "elsewhere.test is not hosted here"},
		{nobody, "-f root a@elsewhere.test", "hi\n", 77, "may not send as <root@example.test>"},
		{nil, "-t", "Subject: nobody\n\n", 65, "no recipient"},
		{nil, "", "hi\n", 64, "no recipient"},
		{nil, "-bs", "", 64, "-bs"},
		{nil, "a@b@c", "hi\n", 67, "address"},
		{nobody, "-bp", "", 1, "you may not talk to relayd"},
	} {
		errs, code := s.sendmail(link, c.as, c.args, c.input)
		if code != c.code || !strings.Contains(errs, c.says) {
			t.Errorf("sendmail %s exits with %d and says %q", c.args, code, errs)
		}
	}
	s.mustSendmail(link, nil, "-bp", "")
	if n := snk.Count(); n != 4 {
		t.Errorf("%d messages arrived", n)
	}
}
