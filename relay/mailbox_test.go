package relay

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"relayd/address"
	"relayd/internal/sink"
	"relayd/queue"
)

// withMailboxes is a world whose users have mailboxes at the second sink, but for those of one domain.
func withMailboxes(t *testing.T, opt sink.Options) (*world, *sink.Sink) {
	opt.LMTP, opt.Addr = true, filepath.Join(t.TempDir(), "lmtp")
	boxes, err := sink.Start(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(boxes.Close)
	files := map[string]string{
		"domains/example.test/users": "ann:" + testHash + "\nbob:" + testHash + "\ngone:!" + testHash + "\n",
		"domains/example.test/aliases": "ann: ann, ann@elsewhere.test\nshop: bob+shop\nboth: ann, bob\nalso: bob\n" +
			"staff: bob, x@elsewhere.test\n*: catch@elsewhere.test\n",
		"domains/plain.test/users":       "carl:" + testHash + "\n",
		"domains/plain.test/domain.toml": "mailbox = false\n",
		"domains/plain.test/aliases":     "x: y@elsewhere.test\n",
	}
	w := openWorldOf(t, "[mailbox]\nlmtp = \"unix:"+boxes.Addr()+"\"\n", sink.Options{}, files)
	return w, boxes
}

// submit puts a message in, whatever becomes of it at once.
func (w *world) submit(c *Client, sender string, rcpts []string, text string) {
	w.t.Helper()
	if _, _, err := w.offer(c, sender, rcpts, text); err != nil {
		w.t.Fatal(err)
	}
}

// arrived are the envelopes that a sink has, sorted: "sender → recipients".
func arrived(t *testing.T, s *sink.Sink, n int) []string {
	t.Helper()
	var list []string
	for _, m := range messagesAt(t, s, n) {
		rcpts := slices.Sorted(slices.Values(m.Rcpts))
		list = append(list, m.From+" → "+strings.Join(rcpts, " "))
	}
	slices.Sort(list)
	return list
}

func TestMailToMailboxes(t *testing.T) {
	for _, c := range []struct {
		rcpts   []string
		boxes   []string
		forward []string // recipients
	}{
		{[]string{"bob@example.test"}, []string{"s@elsewhere.test → bob@example.test"}, nil},
		{[]string{"BOB+Tag@example.test"}, []string{"s@elsewhere.test → bob+Tag@example.test"}, nil},
		{[]string{"gone@example.test"}, []string{"s@elsewhere.test → gone@example.test"}, nil}, // may not log in, and still gets mail
		{[]string{"shop@example.test"}, []string{"s@elsewhere.test → bob+shop@example.test"}, nil},
		{[]string{"ann@example.test"}, []string{"s@elsewhere.test → ann@example.test"}, []string{"ann@elsewhere.test"}},
		{[]string{"ann+x@example.test"}, []string{"s@elsewhere.test → ann@example.test"}, []string{"ann@elsewhere.test"}},
		{[]string{"staff@example.test"}, []string{"s@elsewhere.test → bob@example.test"}, []string{"x@elsewhere.test"}},
		{[]string{"both@example.test"}, []string{"s@elsewhere.test → ann@example.test bob@example.test"}, []string{"ann@elsewhere.test"}},
		{[]string{"bob@example.test", "also@example.test"}, []string{"s@elsewhere.test → bob@example.test"}, nil},
		{[]string{"hello@example.test"}, nil, []string{"catch@elsewhere.test"}},
	} {
		t.Run(strings.Join(c.rcpts, " "), func(t *testing.T) {
			w, boxes := withMailboxes(t, sink.Options{})
			w.submit(stranger, "s@elsewhere.test", c.rcpts, hello)
			if got := arrived(t, boxes, len(c.boxes)); !slices.Equal(got, c.boxes) {
				t.Errorf("mailboxes have %q", got)
			}
			for _, m := range boxes.Messages() {
				text := string(m.Data)
				if !strings.HasSuffix(text, hello) || strings.Contains(text, "Delivered-To:") || strings.Contains(text, "DKIM-Signature:") || !strings.HasPrefix(text, "Authentication-Results:") {
					t.Errorf("a mailbox has %q", text)
				}
			}
			var forwarded []string
			for _, m := range w.wait(len(c.forward)) {
				forwarded = append(forwarded, m.Rcpts...)
				if !strings.HasPrefix(m.From, "SRS0=") {
					t.Errorf("forwarded from %s", m.From)
				}
			}
			if !slices.Equal(forwarded, c.forward) {
				t.Errorf("forwarded to %q", forwarded)
			}
		})
	}
}

func TestNoMailboxNoMail(t *testing.T) {
	w, _ := withMailboxes(t, sink.Options{})
	if _, _, err := w.deliver(stranger, "s@elsewhere.test", []string{"carl@plain.test"}, hello); err == nil || !strings.HasPrefix(err.Error(), "550 5.1.1") {
		t.Error(err)
	}
}

// What a user sends to another one stays in the house, and so does the news of what failed.
func TestUsersWriteToEachOther(t *testing.T) {
	w, boxes := withMailboxes(t, sink.Options{Reply: func(stage, arg string, _ int) string {
		if stage == "dot" && arg == "bob@example.test" {
			return "554 5.6.0 bob takes nothing like this"
		}
		return ""
	}})
	w.submit(w.user("gone@example.test"), "gone@example.test", []string{"bob@example.test"}, "From: gone@example.test\r\nSubject: lost\r\n\r\nx\r\n")
	m := messagesAt(t, boxes, 1)[0]
	if m.From != "" || m.Rcpts[0] != "gone@example.test" || !strings.Contains(string(m.Data), "Diagnostic-Code: smtp; 554 5.6.0 bob takes nothing like this") {
		t.Errorf("from <%s> to %q: %s", m.From, m.Rcpts, m.Data)
	}
	if w.sink.Count() > 0 {
		t.Error("mail left the house")
	}
}

// A mailbox is a target as any other when it is asked who may send as whom.
func TestWhoMaySendAsAMailbox(t *testing.T) {
	w, _ := withMailboxes(t, sink.Options{})
	for _, c := range []struct {
		user, as string
		ok       bool
	}{
		{"bob@example.test", "also@example.test", true},
		{"bob@example.test", "shop@example.test", true},
		{"bob@example.test", "staff@example.test", false},
		{"bob@example.test", "hello@example.test", false},
		{"bob@example.test", "ann@example.test", false},
		{"ann@example.test", "ann+x@example.test", true},
		{"ann@example.test", "also@example.test", false},
	} {
		err := mayUse(w.store.Current(), mailbox(t, c.user), mailbox(t, c.as), "From")
		if (err == nil) != c.ok {
			t.Errorf("%s as %s: %v", c.user, c.as, err)
		}
	}
}

// Mail that was on its way to a mailbox when the mailbox server was taken out of the settings is
// looked up anew.
func TestMailboxServerTakenOut(t *testing.T) {
	w := openWorld(t, "", sink.Options{})
	r := queue.Recipient{Address: address.Address{Local: "shop", Domain: "example.test"}, Mailbox: true}
	if got := w.out.Group(&r); got != "local" {
		t.Errorf("group %q", got)
	}
}
