//go:build interop

package interop

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"relayd/internal/sink"
)

// startDovecot runs Dovecot in a namespace and returns its folder, which stands for DIR in conf, the
// end of dovecot.conf. Mail is below mail/ in it.
func startDovecot(ns *namespace, conf string) (dir string) {
	t := ns.t
	t.Helper()
	dir, err := os.MkdirTemp("", "relayd-dovecot-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text := `base_dir = DIR/run
state_dir = DIR/run
log_path = /dev/stderr
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_failure_delay = 0
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
` + conf
	file := filepath.Join(dir, "dovecot.conf")
	err = errors.Join(os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "mail"), 0o755), os.Chown(filepath.Join(dir, "mail"), idBox, idBox),
		os.WriteFile(file, []byte(strings.ReplaceAll(text, "DIR", dir)), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	log := newLogbook()
	done := ns.background(ns.command(peer(t, "dovecot"), "-F", "-c", file), log)
	log.await(t, "Dovecot has started", func(l logLine) bool { return strings.Contains(l.text("msg"), "starting up") }, done)
	return dir
}

// An imap is one IMAP session of somebody who reads mail.
type imap struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

// say sends a command and returns the whole answer, literals included.
func (c *imap) say(command string) string {
	c.t.Helper()
	c.conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c.conn, "x "+command+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
	var all strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			c.t.Fatalf("%s: %v after %q", command, err, all.String())
		}
		all.WriteString(line)
		if strings.HasPrefix(line, "x ") {
			return all.String()
		}
		if size := literal.FindStringSubmatch(line); size != nil {
			var n int64
			fmt.Sscan(size[1], &n)
			if _, err := io.CopyN(&all, c.r, n); err != nil {
				c.t.Fatal(err)
			}
		}
	}
}

var literal = regexp.MustCompile(`\{(\d+)\}\r\n$`)

// readMail logs in by IMAP and waits for n messages, which it returns, in one text. Without the right
// password it returns the refusal.
func readMail(ns *namespace, user, password string, n int) string {
	ns.t.Helper()
	conn := ns.dial("127.0.0.1:143")
	defer conn.Close()
	c := &imap{ns.t, conn, bufio.NewReader(conn)}
	if _, err := c.r.ReadString('\n'); err != nil {
		ns.t.Fatal(err)
	}
	if got := c.say(fmt.Sprintf("LOGIN %q %q", user, password)); !strings.Contains(got, "x OK") {
		return got
	}
	c.say("SELECT INBOX")
	waitFor(ns.t, fmt.Sprintf("%d messages for %s", n, user), patience, func() bool {
		c.say("NOOP")
		return strings.Count(c.say("FETCH 1:* (UID)"), " FETCH ") >= n
	})
	return c.say("FETCH 1:* (BODY.PEEK[])")
}

// mailboxes is a Dovecot that keeps mailboxes of 100 KiB each, for the users in DIR/domains.
const mailboxes = `protocols = imap lmtp
mail_location = maildir:DIR/mail/%d/%n
# The hashes stand in the file without a scheme in front, as htpasswd writes them.
passdb {
  driver = passwd-file
  args = scheme=BLF-CRYPT username_format=%n DIR/domains/%d/users
}
userdb {
  driver = static
  args = uid=61999 gid=61999 home=DIR/mail/%d/%n
}
service auth {
  user = root
}
service lmtp {
  unix_listener DIR/lmtp {
    mode = 0600
  }
}
mail_plugins = quota
plugin {
  quota = maildir:User quota
  quota_rule = *:storage=100K
}
`

// TestDovecotMailbox: Dovecot keeps users' mail, and knows them by the file in which relayd finds them.
func TestDovecotMailbox(t *testing.T) {
	t.Parallel()
	ns := newNamespace(t, "dovecot", "127.0.0.1")
	dir := startDovecot(ns, mailboxes)
	s, snk := newWorld(t, sink.Options{}, fmt.Sprintf("[mailbox]\nlmtp = %q\n", "unix:"+filepath.Join(dir, "lmtp")))
	s.addDomain("example.test", "me: me, you@mailbox.test\n*: catch@mailbox.test\n", "me", "app", "full")
	s.addDomain("away.test", "", "ghost") // which Dovecot has not heard of
	users := s.read("domains/example.test/users")
	s.write("domains/example.test/users", users+strings.Replace(users[:strings.IndexByte(users, '\n')+1], "me:", "gone:!", 1))
	err := errors.Join(os.MkdirAll(filepath.Join(dir, "domains/away.test"), 0o755), os.WriteFile(filepath.Join(dir, "domains/away.test/users"), nil, 0o644),
		os.Symlink(s.path("domains/example.test"), filepath.Join(dir, "domains/example.test")))
	if err != nil {
		t.Fatal(err)
	}
	d := s.start()

	// One copy stays, one goes on.
	stranger := dial(t, d.address("smtp"))
	stranger.say("EHLO client.test", "250 ")
	if got := stranger.transaction("friend@elsewhere.test", "me+tag@example.test", strangersMail("one-copy", 300)); !strings.HasPrefix(got, "250 2.0.0 Ok: forwarded as ") {
		t.Error(got)
	}
	text := readMail(ns, "me@example.test", password, 1)
	if strings.Count(text, "Subject: one-copy\r\n") != 1 || !strings.Contains(text, "one-copy 3 xxx") {
		t.Errorf("me reads\n%s", text)
	}
	if m := arrived(t, snk, 1)[0]; m.Rcpts[0] != "you@mailbox.test" || !strings.Contains(string(m.Data), "Subject: one-copy\r\n") {
		t.Errorf("forwarded to %q:\n%s", m.Rcpts, m.Data)
	}
	if got := readMail(ns, "me@example.test", "wrong horse", 0); !strings.HasPrefix(got, "x NO [AUTHENTICATIONFAILED]") {
		t.Errorf("a wrong password: %s", got)
	}
	if got := readMail(ns, "gone@example.test", password, 0); !strings.HasPrefix(got, "x NO ") {
		t.Errorf("a disabled user: %s", got)
	}

	// Who asks hears that the message is in the mailbox.
	c := s.submit(d, "submissions", "app@example.test")
	c.play("> MAIL FROM:<app@example.test>\n< 250\n> RCPT TO:<full@example.test> NOTIFY=SUCCESS\n< 250")
	if got := c.message(mailFrom("app@example.test", "filling", 80_000)); !strings.HasPrefix(got, "250 ") {
		t.Error(got)
	}
	text = readMail(ns, "app@example.test", password, 1)
	for _, field := range []string{"Final-Recipient: rfc822; full@example.test\r\n", "Action: delivered\r\n", "Status: 2."} {
		if !strings.Contains(text, field) {
			t.Errorf("no %q in\n%s", field, text)
		}
	}

	// The mailbox that is full and the one that is not there keep nothing from the others.
	c.play("> MAIL FROM:<app@example.test>\n< 250\n> RCPT TO:<full@example.test>\n< 250\n> RCPT TO:<app@example.test>\n< 250\n> RCPT TO:<ghost@away.test>\n< 250")
	if got := c.message(mailFrom("app@example.test", "too-much", 60_000)); !strings.HasPrefix(got, "250 ") {
		t.Error(got)
	}
	text = readMail(ns, "app@example.test", password, 3) // the message, and that ghost does not get it
	if strings.Count(text, "Subject: too-much\r\n") < 1 || !strings.Contains(text, "Final-Recipient: rfc822; ghost@away.test\r\nAction: failed\r\nStatus: 5.1.1\r\n") {
		t.Errorf("app reads\n%s", text)
	}
	var queue []struct {
		Recipients []struct {
			Address, State string
			LastReply      string `json:"last_reply"`
		}
	}
	if err := json.Unmarshal([]byte(s.mustUtil("queue-list", "--json")), &queue); err != nil || len(queue) != 1 {
		t.Fatalf("%v: %+v", err, queue)
	}
	for _, r := range queue[0].Recipients {
		if waits := r.Address == "full@example.test"; waits != (r.State == "waiting") || waits && !strings.HasPrefix(r.LastReply, "552 5.2.2 ") {
			t.Errorf("left in the queue: %+v", r)
		}
	}
}
