//go:build interop

package interop

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
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
	cmd := exec.Command(link, append([]string{"-C", s.config()}, strings.Fields(args)...)...)
	if as != nil { // who has to learn from the settings where this site's state folder is
		if err := os.Chmod(s.config(), 0o644); err != nil {
			s.t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	}
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

// TestMailx: the mail command of Debian hands its message to the program that it is told of.
func TestMailx(t *testing.T) {
	s, snk, link := newSendmailSite(t, "")
	s.start()
	s.write("wrapper", fmt.Sprintf("#!/bin/sh\nexec %s -C %s \"$@\"\n", link, s.config()))
	s.write("mailrc", "set sendmail="+s.path("wrapper")+"\n")
	if err := os.Chmod(s.path("wrapper"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(peer(t, "bsd-mailx"), "-s", "from mailx", "-c", "a@elsewhere.test", "root")
	cmd.Env = append(os.Environ(), "MAILRC="+s.path("mailrc"), "HOME="+s.dir)
	cmd.Stdin = strings.NewReader("hi\n")
	mustRun(t, cmd)
	for _, m := range arrived(t, snk, 2) {
		if data := string(m.Data); !strings.Contains(data, "Subject: from mailx\r\n") || !strings.Contains(data, "DKIM-Signature:") || !strings.Contains(data, "root@example.test") {
			t.Errorf("to %v arrived\n%s", m.Rcpts, data)
		}
	}
}

// TestSendmailWhileDown: messages wait in the drop folder, those that must not be taken are not, and
// nobody can read in it.
func TestSendmailWhileDown(t *testing.T) {
	s, snk, link := newSendmailSite(t, "")
	if errs, code := s.sendmail(link, nil, "root", "hi\n"); code != 69 || !strings.Contains(errs, "[sendmail]") {
		t.Errorf("before relayd has run once: exit code %d, %q", code, errs)
	}
	d := s.start()
	d.stop()
	s.mustSendmail(link, nil, "root", "Subject: of root\n\nhi\n")
	s.mustSendmail(link, nobody, "-i a@elsewhere.test", "Subject: of nobody\n\nhi\n")
	s.mustSendmail(link, nobody, "-t", "Subject: foreign\nFrom: app@example.test\nTo: a@elsewhere.test\n\nhi\n")
	whole := `{"sender":"","recipients":["a@elsewhere.test"],"size":16}` + "\nSubject: bad\r\n\r\n"
	for name, f := range map[string]func(string) error{
		"link": func(name string) error { s.write("elsewhere", whole); return os.Symlink(s.path("elsewhere"), name) },
		"hard": func(name string) error { s.write("other", whole); return os.Link(s.path("other"), name) },
		"writable": func(name string) error {
			return errors.Join(os.WriteFile(name, []byte(whole), 0o600), os.Chmod(name, 0o666))
		},
		"cut":       func(name string) error { return os.WriteFile(name, []byte(whole[:len(whole)-1]), 0o600) },
		"garbage":   func(name string) error { return os.WriteFile(name, []byte("hello\n"), 0o600) },
		"fifo":      func(name string) error { return syscall.Mkfifo(name, 0o600) },
		".unfinish": func(name string) error { return os.WriteFile(name, []byte(whole), 0o600) },
	} {
		if err := f(s.path("state/maildrop/" + name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"ls", s.path("state")}, {"ls", s.path("state/maildrop")}, {"cat", s.path("state/srs-secrets")}, {"ls", s.path("state/queue")}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: nobody}
		if out, err := cmd.Output(); err == nil {
			t.Errorf("nobody may %v: %s", args, out)
		}
	}
	s.start()
	messages := arrived(t, snk, 5) // root is told of what was cut, and of the garbage
	waitFor(t, "the drop folder is emptied", patience, func() bool {
		left, err := os.ReadDir(s.path("state/maildrop"))
		return err == nil && len(left) == 1
	})
	var all strings.Builder
	for _, m := range messages {
		all.Write(m.Data)
	}
	if snk.Count() != 5 || strings.Contains(all.String(), "Subject: bad") {
		t.Errorf("%d messages arrived:\n%s", snk.Count(), &all)
	}
	for _, want := range []string{"Subject: of root\r\n", "Subject: of nobody\r\n", "The local user nobody may not send as <app@example.test>"} {
		if strings.Count(all.String(), want) != 1 {
			t.Errorf("not once %q in\n%s", want, &all)
		}
	}
}

// TestSend: every step of a message is told, the reply of the other side too.
func TestSend(t *testing.T) {
	reply := func(stage, arg string, _ int) string {
		if stage == "rcpt" && strings.Contains(arg, "no@") {
			return "550 5.1.1 No such user"
		}
		if stage == "rcpt" && strings.Contains(arg, "later@") {
			return "451 4.2.0 Come again"
		}
		return ""
	}
	s, snk := newWorld(t, sink.Options{Reply: reply}, "")
	s.start()
	out := s.mustUtil("send", "--from", "app@example.test", "--to", "a@elsewhere.test", "--subject", "Grüße")
	for _, want := range []string{
		`queued as [A-Za-z0-9]+\n`, `signed for example.test with the key r1 \(rsa-sha256\)\n`, `the key e1 \(ed25519-sha256\)`,
		`connected to mx.elsewhere.test \[127.0.0.1\] over IPv4\n`, `ready for mail, with no TLS\n`,
		`a@elsewhere.test: delivered by mx.elsewhere.test \[127.0.0.1\]: 250 `,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("there is no %q in\n%s", want, out)
		}
	}
	if data := string(arrived(t, snk, 1)[0].Data); !strings.Contains(data, "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n") {
		t.Errorf("it arrived as\n%s", data)
	}
	if out, _, code := s.util("send", "--from", "app@example.test", "--to", "no@elsewhere.test"); code != 1 || !strings.Contains(out, "refused by mx.elsewhere.test [127.0.0.1]: 550 5.1.1 No such user") {
		t.Errorf("to nobody: exit code %d\n%s", code, out)
	}
	out, _, code := s.util("send", "--from", "app@example.test", "--to", "later@elsewhere.test", "--to", "b@elsewhere.test", "--wait", "3s", "--json")
	if code != 1 || !strings.Contains(out, `"finished": false`) || !strings.Contains(out, "451 4.2.0 Come again") || !strings.Contains(out, `"delivered"`) {
		t.Errorf("to one who defers: exit code %d\n%s", code, out)
	}
	_, errs, code := s.util("send", "--from", "a@elsewhere.test", "--to", "b@elsewhere.test")
	if code != 1 || !strings.Contains(errs, "elsewhere.test is not hosted here") {
		t.Errorf("from a foreign domain: exit code %d\n%s", code, errs)
	}
	s.write("msg", "From: other@example.org\nSubject: x\n\nhi\n")
	if _, errs, code := s.util("send", "--from", "app@example.test", "--to", "b@elsewhere.test", s.path("msg")); code != 1 || !strings.Contains(errs, "may not send as <other@example.org>") {
		t.Errorf("with a foreign From: exit code %d\n%s", code, errs)
	}
}
