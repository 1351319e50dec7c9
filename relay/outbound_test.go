package relay

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"relayd/address"
	"relayd/delivery"
	"relayd/digest"
	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
	"relayd/queue"
	"relayd/reply"
)

// world is a house whose mail leaves to a sink that is the mail exchanger of mailbox.test and
// elsewhere.test.
type world struct {
	*house
	sink *sink.Sink
	out  *Outbound
	work *queue.Queue
	book *digest.Book
	days atomic.Int64 // by how many the clock of book is ahead
}

func openWorld(t *testing.T, toml string, opt sink.Options) *world {
	return openWorldOf(t, toml, opt, exampleTest)
}

// openWorldOf is openWorld with other files.
func openWorldOf(t testing.TB, toml string, opt sink.Options, files map[string]string) *world {
	t.Helper()
	opt.Addr, opt.Hostname = "127.0.0.1:0", "mx.mailbox.test"
	s, err := sink.Start(opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	names := testnet.NewDNS(t, "mailbox.test. 60 IN MX 10 mx.mailbox.test.\nelsewhere.test. 60 IN MX 10 mx.mailbox.test.\nmx.mailbox.test. 60 IN A 127.0.0.1\n"+
		"example.test. 60 IN MX 10 mx.mailbox.test.\n")
	h := build(t, toml, files)
	h.Now = time.Now
	addr := netip.MustParseAddrPort(s.Addr())
	c := delivery.New(delivery.Options{
		Hostname: "mx.example.test", Port: int(addr.Port()), Family: "auto", Times: delivery.DefaultTimes(),
		Resolver: dns.New(dns.Options{Servers: []string{names.Addr()}}), IsSelf: func(netip.AddrPort) bool { return false },
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	t.Cleanup(c.Close)
	out := NewOutbound(h.Options, c)
	store, err := queue.OpenStore(queue.StoreOptions{Dir: filepath.Join(h.dir, "queue2"), Group: out.Group, Log: h.Log})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{house: h, sink: s, out: out}
	w.book = digest.Open(digest.Options{
		Hostname: "mx.example.test", Log: h.Log, Load: func() ([]byte, error) { return nil, nil }, Save: func([]byte) error { return nil },
		Now: func() time.Time { return time.Now().Add(time.Duration(w.days.Load()) * 24 * time.Hour) },
	})
	q := queue.New(queue.Options{
		Hostname: "mx.example.test", Lifetime: time.Hour, Workers: 10, PerGroup: 5, Sign: h.Sign, Log: h.Log, Grace: time.Second,
		Failed: h.NoteFailures(w.book),
	}, store, out)
	w.work, h.queue = q, q
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { q.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
	return w
}

// send puts a message in without looking at the queue, which is busy with it.
func (w *world) send(c *Client, sender string, rcpts []string, text string) {
	w.t.Helper()
	_, _, err := w.deliver(c, sender, rcpts, text)
	if err != nil && !strings.Contains(err.Error(), "no such message") {
		w.t.Fatal(err)
	}
}

func (w *world) wait(n int) []*sink.Message {
	w.t.Helper()
	return messagesAt(w.t, w.sink, n)
}

// messagesAt returns what has come to a sink once that are n messages.
func messagesAt(t testing.TB, s *sink.Sink, n int) []*sink.Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	list, err := s.Wait(ctx, n)
	if err != nil {
		t.Fatalf("waiting for %d messages, %d came: %v", n, len(list), err)
	}
	return list
}

// queueFirst has nobody wait for the destination.
const queueFirst = "[forward]\nanswer_within = \"0s\"\n"

func TestForwardedMailLeaves(t *testing.T) {
	w := openWorld(t, queueFirst, sink.Options{})
	w.send(stranger, "s@elsewhere.test", []string{"team@example.test"}, hello)
	for _, m := range w.wait(2) {
		if !strings.HasPrefix(m.From, "SRS0=") || len(m.Rcpts) != 1 || !strings.HasSuffix(string(m.Data), hello) {
			t.Errorf("from %s to %q: %q", m.From, m.Rcpts, m.Data)
		}
		if !strings.Contains(string(m.Data), "X-Forwarded-To: "+m.Rcpts[0]+"\r\n") {
			t.Errorf("%q lacks its own fields", m.Data)
		}
		if got := w.verified(string(m.Data)); !slices.Equal(got, []string{"example.test"}) {
			t.Errorf("signed by %q", got)
		}
	}
}

func TestOneTransactionForManyAtOneDomain(t *testing.T) {
	w := openWorld(t, "", sink.Options{})
	w.send(w.user("app@example.test"), "app@example.test", []string{"a@elsewhere.test", "b@elsewhere.test", "c@mailbox.test"}, "From: app@example.test\r\n\r\nx\r\n")
	for _, m := range w.wait(2) {
		if want := map[string]int{"a@elsewhere.test": 2, "c@mailbox.test": 1}[m.Rcpts[0]]; len(m.Rcpts) != want {
			t.Errorf("recipients %q", m.Rcpts)
		}
	}
}

// The DSN to a user of ours goes by the aliases, not by the MX of the hosted domain.
func TestDSNFindsTheUsersMailbox(t *testing.T) {
	refuse := func(stage, arg string, _ int) string {
		if stage == "rcpt" && strings.Contains(arg, "nobody@elsewhere.test") {
			return "550 5.1.1 no such mailbox"
		}
		return ""
	}
	w := openWorld(t, "", sink.Options{Reply: refuse})
	w.send(w.user("app@example.test"), "app@example.test", []string{"nobody@elsewhere.test"}, "From: app@example.test\r\nSubject: lost\r\n\r\nx\r\n")
	m := w.wait(1)[0]
	if m.From != "" || m.Rcpts[0] != "me@mailbox.test" {
		t.Errorf("from <%s> to %q", m.From, m.Rcpts)
	}
	text := string(m.Data)
	for _, want := range []string{"Action: failed", "Status: 5.1.1", "Final-Recipient: rfc822; nobody@elsewhere.test", "550 5.1.1 no such mailbox", "Subject: lost", "Auto-Submitted: auto-replied"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in %q", want, text)
		}
	}
	if got := w.verified(text); !slices.Contains(got, "example.test") {
		t.Errorf("the DSN is signed by %q", got)
	}
}

func TestNobodyIsToldOfForgedMailThatFails(t *testing.T) {
	refuse := func(stage, _ string, _ int) string {
		if stage == "dot" {
			return "550 5.7.1 spam"
		}
		return ""
	}
	w := openWorld(t, queueFirst, sink.Options{Reply: refuse})
	w.send(stranger, "victim@elsewhere.test", []string{"shop@example.test"}, hello)
	deadline := time.Now().Add(10 * time.Second)
	for n := 1; n > 0 && time.Now().Before(deadline); {
		n = 0
		w.work.List(func(*queue.Envelope) bool { n++; return true })
	}
	if !strings.Contains(w.log.String(), "nobody is told") || w.sink.Count() != 0 {
		t.Errorf("%d messages arrived; log %s", w.sink.Count(), w.log)
	}
}

func TestHeldPostmasterMailGoesOnceThereIsAnAlias(t *testing.T) {
	w := openWorld(t, "", sink.Options{})
	e, _, err := w.deliver(stranger, "s@elsewhere.test", []string{"postmaster@strict.test"}, hello)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.work.Release(e.ID); err != nil {
		t.Fatal(err)
	}
	for {
		if e, err = w.work.Get(e.ID); err != nil {
			t.Fatal(err)
		}
		if e.Recipients[0].Attempts > 0 && e.Recipients[0].State == queue.Held {
			break // still nobody to give it to
		}
		time.Sleep(time.Millisecond)
	}
	write(t, w.dir, "domains/strict.test/aliases", "postmaster: boss@mailbox.test\n")
	w.store.Reload()
	if err := w.work.Release(e.ID); err != nil {
		t.Fatal(err)
	}
	m := w.wait(1)[0]
	if m.Rcpts[0] != "boss@mailbox.test" || !strings.HasPrefix(m.From, "SRS0=") || !strings.HasSuffix(string(m.Data), hello) {
		t.Errorf("from %s to %q: %q", m.From, m.Rcpts, m.Data)
	}
}

func TestGroups(t *testing.T) {
	h := build(t, "", exampleTest)
	c := delivery.New(delivery.Options{Hostname: "mx.example.test"})
	t.Cleanup(c.Close)
	out := NewOutbound(h.Options, c)
	for want, r := range map[string]*queue.Recipient{
		"mx? elsewhere.test":     {Address: address.Address{Local: "a", Domain: "elsewhere.test"}},
		"local":                  {Address: address.Address{Local: "a", Domain: "example.test"}},
		"via mx1.test/mx2.test":  {Address: address.Address{Local: "a", Domain: "example.test"}, Via: []string{"mx1.test", "mx2.test"}},
		"program /usr/bin/filer": {Pipe: []string{"/usr/bin/filer", "x"}},
	} {
		if got := out.Group(r); got != want {
			t.Errorf("group %q, want %q", got, want)
		}
	}
}

// TestForwardThenAnswer: who sends to an alias hears from the destination itself, without learning
// who is behind the alias, and only what neither takes nor refuses the message for good queues it.
func TestForwardThenAnswer(t *testing.T) {
	for _, c := range []struct{ says, want, queued string }{
		{"", "250 2.0.0 Ok: forwarded as ", ""},
		{"550 5.7.1 me@mailbox.test: our system has found that this is spam", "550 5.7.1 The destination refused the message: shop@example.test: our system has found that this is spam", ""},
		{"452 4.2.2 over quota", "250 2.0.0 Ok: queued as ", "452 4.2.2 over quota"},
		{"421 4.7.28 too fast", "250 2.0.0 Ok: queued as ", "421 4.7.28 too fast"},
	} {
		says := func(stage, _ string, _ int) string {
			if stage == "dot" {
				return c.says
			}
			return ""
		}
		w := openWorld(t, "", sink.Options{Reply: says})
		_, got, err := w.offer(stranger, "s@elsewhere.test", []string{"shop@example.test"}, hello)
		if err != nil {
			got = reply.From(err)
		}
		if !strings.HasPrefix(got.String(), c.want) {
			t.Errorf("%q is passed on as %q", c.says, got)
		}
		left := ""
		w.work.List(func(e *queue.Envelope) bool { left = e.Recipients[0].LastReply; return true })
		if left != c.queued {
			t.Errorf("%q leaves %q in the queue", c.says, left)
		}
		if n := w.sink.Count(); (n == 1) != (c.says == "") {
			t.Errorf("%q: %d arrived", c.says, n)
		}
	}
}
