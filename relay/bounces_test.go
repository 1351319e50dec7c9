package relay

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"relayd/internal/sink"
	"relayd/queue"
	"relayd/reply"
	"relayd/srs"
)

// withSRS gives a house a rewriter with tokens.
func (h *house) withSRS(tokens srs.TokenStore) *house {
	h.t.Helper()
	rewriter, err := srs.New(srs.Options{Secrets: [][]byte{[]byte("new"), []byte("secret")}, Tokens: tokens})
	if err != nil {
		h.t.Fatal(err)
	}
	h.SRS = rewriter
	return h
}

// TestEveryBounceFindsItsWayBack: whatever the sender was, mail to the reverse-path of its copy goes
// to where a bounce belongs, and is not rewritten itself.
func TestEveryBounceFindsItsWayBack(t *testing.T) {
	tokens, err := srs.OpenTokens(filepath.Join(t.TempDir(), "tokens"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tokens.Close() })
	h := build(t, "", exampleTest).withSRS(tokens)
	long := strings.Repeat("l", 60) + "@elsewhere.test"
	for sender, c := range map[string]struct{ prefix, back string }{
		"s@elsewhere.test":                            {"SRS0=", "s@elsewhere.test"},
		"Mixed.Case+tag@elsewhere.test":               {"SRS0=", "Mixed.Case+tag@elsewhere.test"},
		"SRS0=abcd=XY=origin.test=s@elsewhere.test":   {"SRS1=", "SRS0=abcd=XY=origin.test=s@elsewhere.test"},
		"SRS1=efgh=hop.test==abcd=XY=o.test=s@b.test": {"SRS1=", "SRS0=abcd=XY=o.test=s@hop.test"},
		long: {"SRS0=", long},
	} {
		e, _, err := h.deliver(stranger, sender, []string{"shop@example.test"}, from("a@unknown.test"))
		if err != nil {
			t.Errorf("%s: %v", sender, err)
			continue
		}
		out := e.Recipients[0].ReturnPath
		if !strings.HasPrefix(out.Local, c.prefix) || out.Domain != "example.test" {
			t.Errorf("%s leaves as %s", sender, out)
		}
		e, _, err = h.deliver(stranger, "", []string{strings.ToLower(out.Local) + "@example.test"}, "From: <>\r\n\r\nbounce\r\n")
		if err != nil {
			t.Errorf("%s: %v", out, err)
			continue
		}
		if r := e.Recipients[0]; !strings.EqualFold(r.Address.String(), c.back) || !r.ReturnPath.IsNull() {
			t.Errorf("the bounce to %s goes to %+v", out, r)
		}
	}
}

// An address that an older secret signed is good until it expires.
func TestBouncesSurviveANewSecret(t *testing.T) {
	h := build(t, "", exampleTest)
	e, _, err := h.deliver(stranger, "s@elsewhere.test", []string{"shop@example.test"}, hello)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := h.withSRS(nil).deliver(stranger, "", []string{e.Recipients[0].ReturnPath.String()}, hello); err != nil {
		t.Error(err)
	}
}

func TestForgersOfBounceAddressesAreSlowedDown(t *testing.T) {
	h := build(t, "", exampleTest)
	now := noon
	h.Now = func() time.Time { return now }
	h.limits = newLimits(h.Now)
	genuine, err := h.SRS.Forward(mailbox(t, "s@elsewhere.test"), "example.test", noon)
	if err != nil {
		t.Fatal(err)
	}
	try := func(from, to string) string {
		c := *stranger
		c.IP = netip.MustParseAddr(from)
		if _, _, err := h.offer(&c, "", []string{to}, hello); err != nil {
			return err.Error()[:9]
		}
		return ""
	}
	forged := func(n int) string { return fmt.Sprintf("SRS0=%08d=BB=x.test=a@example.test", n) }
	for n := range maxForged {
		if got := try("2001:db8::1", forged(n)); got != "550 5.1.1" {
			t.Fatalf("forgery %d: %s", n, got)
		}
	}
	for _, c := range []struct{ from, to, want string }{
		{"2001:db8::ffff", forged(0), "450 4.2.1"},
		{"2001:db8::1", genuine.String(), "450 4.2.1"}, // or the answer would tell it from a forged one
		{"2001:db8::1", "me@example.test", ""},
		{"2001:db8:0:1::1", genuine.String(), ""},
		{"192.0.2.7", genuine.String(), ""},
		{"::ffff:192.0.2.7", forged(0), "550 5.1.1"},
	} {
		if got := try(c.from, c.to); got != c.want {
			t.Errorf("%s to %s: %q, want %q", c.from, c.to, got, c.want)
		}
	}
	now = now.Add(time.Hour)
	if got := try("2001:db8::1", genuine.String()); got != "" {
		t.Errorf("an hour later: %s", got)
	}
}

// A fullDisk is a TokenStore that has no room.
type fullDisk struct{}

func (fullDisk) Put(string, time.Time) (string, error) {
	return "", fmt.Errorf("writing: %w", syscall.ENOSPC)
}
func (fullDisk) Get(string) (string, bool) { return "", false }

func TestSendersThatCannotBeRewritten(t *testing.T) {
	long := strings.Repeat("l", 60) + "@elsewhere.test"
	for want, tokens := range map[string]srs.TokenStore{"452 4.3.1": fullDisk{}, "550 5.1.7": nil} {
		h := build(t, "", exampleTest).withSRS(tokens)
		if _, _, err := h.deliver(stranger, long, []string{"shop@example.test"}, hello); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// refusesMailbox is a destination that refuses what comes for the mailbox behind the alias, when it
// has all of it, and takes everything else.
func refusesMailbox(stage, arg string, _ int) string {
	if stage == "rcpt" && arg == "me@mailbox.test" {
		return "550 5.2.1 <me@mailbox.test> is disabled, says mx.mailbox.test"
	}
	return ""
}

// TestDSNsOfForwardedMail: who has really sent a message hears that it failed after it was taken,
// and not where it was going. Nobody else does.
func TestDSNsOfForwardedMail(t *testing.T) {
	w := openWorld(t, queueFirst, sink.Options{Reply: refusesMailbox})
	w.names.Set(strangersDNS + "softfail.test. TXT \"v=spf1 ~all\"\n")
	for _, c := range []struct {
		sender, fields string
		told           bool
	}{
		{"s@elsewhere.test", "", true},
		{"s@elsewhere.test", "Auto-Submitted: no\r\n", true},
		{"s@unknown.test", "", false},
		{"s@softfail.test", "", false},
		{"", "", false},
		{"s@elsewhere.test", "Auto-Submitted: auto-replied\r\n", false},
		{"s@elsewhere.test", "List-Id: <list.elsewhere.test>\r\n", false},
		{"s@elsewhere.test", "Precedence: bulk\r\n", false},
		{"s@elsewhere.test", "Content-Type: multipart/report; boundary=x\r\n", false},
	} {
		before := w.sink.Count()
		w.send(stranger, c.sender, []string{"shop@example.test"}, c.fields+from("a@unknown.test"))
		if c.told {
			m := w.wait(before + 1)[before]
			if m.From != "" || m.Rcpts[0] != c.sender || strings.Contains(string(m.Data), "mailbox.test") {
				t.Errorf("%+v: from <%s> to %q: %s", c, m.From, m.Rcpts, m.Data)
			}
			if !strings.Contains(string(m.Data), "Final-Recipient: rfc822; shop@example.test") {
				t.Errorf("%+v: the alias is not named in %s", c, m.Data)
			}
		}
		w.untilEmpty()
		if n := w.sink.Count() - before; n > 1 || (n == 1) != c.told {
			t.Errorf("%+v: %d DSNs", c, n)
		}
	}
}

// TestForgedSendersAreNeverTold: a wave of mail in the names of others must not become a wave of
// DSNs to them, wherever the destination refuses it and whoever hears that.
func TestForgedSendersAreNeverTold(t *testing.T) {
	messages := 250
	if os.Getenv("RELAYD_FULL") == "1" {
		messages = 2500 // of each of the four kinds
	}
	for _, stage := range []string{"rcpt", "dot"} {
		for name, toml := range map[string]string{"in the session": "", "late": queueFirst} {
			t.Run(stage+", "+name, func(t *testing.T) {
				t.Parallel()
				var refused, told atomic.Int64
				w := openWorld(t, toml, sink.Options{Reply: func(at, arg string, _ int) string {
					switch {
					case at == "mail" && arg == "", at == "rcpt" && arg != "me@mailbox.test":
						told.Add(1)
					case at == stage:
						refused.Add(1)
						return "550 5.6.0 not like this" // what is called spam would put its source off
					}
					return ""
				}})
				w.names.Set(strangersDNS)
				answers := w.forge(messages)
				w.untilEmpty()
				if refused.Load() != int64(messages) || told.Load() > 0 || w.sink.Count() > 0 {
					t.Errorf("%d are refused, %d commands are for others, %d messages arrive", refused.Load(), told.Load(), w.sink.Count())
				}
				// What would wait for a slot is queued in the one case, and everything in the other.
				if refusals := answers["550"]; answers["250"]+refusals != messages || (refusals > 0) != (toml == "") {
					t.Errorf("answers %v", answers)
				}
			})
		}
	}
}

// forge sends n messages from forged senders, several at a time, and counts the answers by code.
func (w *world) forge(n int) map[string]int {
	var mu sync.Mutex
	var wg sync.WaitGroup
	answers := map[string]int{}
	for k := range 8 {
		wg.Go(func() {
			for i := k; i < n; i += 8 {
				domain := []string{"unknown.test", "none.test", "quarantine.test"}[i%3]
				_, r, err := w.offer(stranger, fmt.Sprintf("victim%d@%s", i, domain), []string{"shop@example.test"}, from("a@"+domain))
				if err != nil {
					r = reply.From(err)
				}
				mu.Lock()
				answers[strconv.Itoa(r.Code)]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return answers
}

// TestBounceGoesToTheOriginalSender, and never to the owner of the alias, though it comes back to the
// domain of the alias, which has a catch-all.
func TestBounceGoesToTheOriginalSender(t *testing.T) {
	w := openWorld(t, "", sink.Options{})
	for n := range 50 {
		sender := fmt.Sprintf("s%d@elsewhere.test", n)
		w.submit(stranger, sender, []string{"shop@example.test"}, from("a@unknown.test"))
		w.wait(2*n + 1)
		out := w.sink.Messages()[2*n].From
		w.submit(stranger, "", []string{out}, "From: <MAILER-DAEMON@mailbox.test>\r\nSubject: undelivered\r\n\r\nbounce\r\n")
		if m := w.wait(2*n + 2)[2*n+1]; m.From != "" || !slices.Equal(m.Rcpts, []string{sender}) {
			t.Fatalf("the bounce to %s goes from <%s> to %q", out, m.From, m.Rcpts)
		}
		if _, _, err := w.offer(stranger, "x@elsewhere.test", []string{out}, hello); err == nil || reply.From(err).Code != 550 {
			t.Fatalf("mail to %s that is no bounce: %v", out, err)
		}
	}
	w.untilEmpty()
	if n := w.sink.Count(); n != 100 {
		t.Errorf("%d messages", n)
	}
}

// TestExpiredAliasIsGone: the catch-all does not take what a temporary alias took.
func TestExpiredAliasIsGone(t *testing.T) {
	h := build(t, "", map[string]string{
		"domains/example.test/aliases": "*: me@mailbox.test\n# relayd: shop7 expires 2026-01-01\nshop7: me@mailbox.test\n# relayd: shop8 expires 2999-01-01\nshop8: me@mailbox.test\n",
	})
	for rcpt, want := range map[string]string{
		"shop7@example.test": "550 5.1.1", "Shop7@example.test": "550 5.1.1", "shop7+tag@example.test": "550 5.1.1", "s.hop7@example.test": "550 5.1.1",
		"shop8@example.test": "", "shop@example.test": "", "shop77@example.test": "",
	} {
		for _, c := range []*Client{stranger, h.user("app@example.test")} {
			got := ""
			if err := h.Recipient(t.Context(), &Transaction{Client: c, world: h.Domains()}, Recipient{Address: mailbox(t, rcpt)}); err != nil {
				got = reply.From(err).String()[:9]
			}
			if got != want {
				t.Errorf("%s: %q, want %q", rcpt, got, want)
			}
		}
	}
}

// untilEmpty waits until nothing is left in the queue.
func (w *world) untilEmpty() {
	w.t.Helper()
	waitFor(w.t, func() bool {
		left := 0
		w.work.List(func(*queue.Envelope) bool { left++; return true })
		for _, g := range w.work.Groups() {
			left += g.Used // what ended a message is told of behind it
		}
		return left == 0
	})
}
