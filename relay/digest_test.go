package relay

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"relayd/internal/sink"
)

// nextDay has the digests of a day sent, and what they lead to done.
func (w *world) nextDay() {
	w.t.Helper()
	w.days.Add(1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // what is due is sent first
	w.book.Run(ctx, w.SendDigest)
	w.untilEmpty()
}

// refuses is a destination where these mailboxes are not.
func refuses(mailboxes ...string) func(stage, arg string, n int) string {
	return func(stage, arg string, _ int) string {
		if stage == "rcpt" && slices.Contains(mailboxes, arg) {
			return "550 5.1.1 <" + arg + "> does not exist"
		}
		return ""
	}
}

// withPostmaster is exampleTest with an alias for postmaster, and other settings of the domain.
func withPostmaster(domainToml string) map[string]string {
	return map[string]string{
		"domains/example.test/users":       exampleTest["domains/example.test/users"],
		"domains/example.test/aliases":     "postmaster: admin@mailbox.test\nshop: gone@mailbox.test\nteam: gone@mailbox.test, b@mailbox.test\n",
		"domains/example.test/domain.toml": domainToml,
		"domains/strict.test/aliases":      "only: gone@mailbox.test\n",
	}
}

// TestDigest: what was taken from strangers and then failed is told to the postmaster in one mail, signed
// by the domain. What was refused while the sender waited is not, unless the alias leads to no mailbox.
func TestDigest(t *testing.T) {
	for name, c := range map[string]struct {
		toml, domainToml string
		says             string // after the message
		rcpt             string
		submitted        bool
		listed           string // "": there is no digest
		lost             bool   // the digest goes to a mailbox that is not there
	}{
		"late":                        {toml: queueFirst, rcpt: "shop@example.test", listed: "550 5.1.1 <gone@mailbox.test> does not exist"},
		"one of two targets":          {rcpt: "team@example.test", listed: "550 5.1.1 <gone@mailbox.test> does not exist"},
		"no mailbox, in the session":  {rcpt: "shop@example.test", listed: "550 5.1.1 <gone@mailbox.test> does not exist"},
		"spam, in the session":        {rcpt: "postmaster@example.test", says: "550 5.7.1 this is spam"},
		"spam, late":                  {toml: queueFirst, rcpt: "postmaster@example.test", says: "550 5.7.1 this is spam", listed: "550 5.7.1 this is spam"},
		"not wanted":                  {toml: queueFirst, rcpt: "shop@example.test", domainToml: "digest = false\n"},
		"a user's":                    {rcpt: "shop@example.test", submitted: true},
		"delivered":                   {rcpt: "postmaster@example.test"},
		"a domain without postmaster": {toml: queueFirst, rcpt: "only@strict.test"},
		"the admin in relayd.toml":    {toml: "postmaster = \"admin@mailbox.test\"\n" + queueFirst, rcpt: "only@strict.test", listed: "550 5.1.1 <gone@mailbox.test> does not exist"},
		"an admin who has no postbox": {toml: "postmaster = \"gone@mailbox.test\"\n" + queueFirst, rcpt: "only@strict.test", lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			missing := refuses("gone@mailbox.test")
			digests := func(all []*sink.Message) (list []*sink.Message) {
				for _, m := range all {
					if strings.Contains(string(m.Data), "Auto-Submitted: auto-generated\r\n") {
						list = append(list, m)
					}
				}
				return list
			}
			var said atomic.Bool
			w := openWorldOf(t, c.toml, sink.Options{Reply: func(stage, arg string, n int) string {
				if stage == "dot" && c.says != "" && !said.Swap(true) {
					return c.says
				}
				return missing(stage, arg, n)
			}}, withPostmaster(c.domainToml))
			client, sender := stranger, "s@unknown.test"
			if c.submitted {
				client, sender = w.user("app@example.test"), "app@example.test"
			}
			_, _, err := w.offer(client, sender, []string{c.rcpt}, from(sender))
			if err != nil && !strings.HasPrefix(err.Error(), "550") {
				t.Fatal(err)
			}
			w.untilEmpty()
			w.nextDay()
			w.nextDay() // it is told once, and a digest that fails is no reason for another
			if n := strings.Count(w.log.String(), "digest queued"); (n == 1) != (c.listed != "" || c.lost) {
				t.Errorf("%d digests were queued", n)
			}
			got := digests(messagesAt(t, w.sink, w.sink.Count()))
			if c.listed == "" {
				if len(got) > 0 {
					t.Errorf("%s", got[0].Data)
				}
				return
			}
			if len(got) != 1 {
				t.Fatalf("%d digests; log %s", len(got), w.log)
			}
			m, text := got[0], string(got[0].Data)
			if m.From != "" || !slices.Equal(m.Rcpts, []string{"admin@mailbox.test"}) {
				t.Errorf("from <%s> to %q", m.From, m.Rcpts)
			}
			for _, want := range []string{"For " + c.rcpt + ", to ", "    " + c.listed + "\r\n", "from <" + sender + ">"} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in %s", want, text)
				}
			}
			if got := w.verified(text); strings.HasSuffix(c.rcpt, "@example.test") && !slices.Equal(got, []string{"example.test"}) {
				t.Errorf("signed by %q", got)
			}
		})
	}
}

// A bounce on its way back that fails is nothing that the domain's postmaster could mend.
func TestFailedBounceIsInNoDigest(t *testing.T) {
	w := openWorldOf(t, queueFirst, sink.Options{Reply: refuses("s@elsewhere.test")}, withPostmaster(""))
	back, err := w.SRS.Forward(mailbox(t, "s@elsewhere.test"), "example.test", w.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.submit(stranger, "", []string{back.String()}, "From: <>\r\n\r\nbounce\r\n")
	w.untilEmpty()
	w.nextDay()
	if n := w.sink.Count(); n > 0 {
		t.Errorf("%d messages", n)
	}
}
