package relay

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/address"
	"relayd/delivery"
	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
	"relayd/queue"
)

// answering is a queue whose mail to gmail.test goes to a server of Google's that says what a test
// has it say, and to the canary to one that takes everything. Its clock stands still.
type answering struct {
	*house
	t      *testing.T
	clock  *testnet.Clock
	queue  *queue.Queue
	out    *Outbound
	mu     sync.Mutex          // guards the rest
	says   map[string]string   // by stage
	asked  map[string][]string // what each stage was about
	added  int
	source string // of what send sends
	canary *sink.Sink
	told   lockedBuffer // the log
}

// A lockedBuffer can be read while it is written to.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newAnswering(t *testing.T, says map[string]string) *answering {
	t.Helper()
	w := &answering{t: t, house: build(t, "", exampleTest), clock: testnet.NewClock(), says: says, asked: map[string][]string{}}
	google, err := sink.Start(sink.Options{Addr: "127.0.0.1:0", Reply: w.reply})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(google.Close)
	port := netip.MustParseAddrPort(google.Addr()).Port()
	if w.canary, err = sink.Start(sink.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.canary.Close)
	names := testnet.NewDNS(t, "gmail.test. 60 IN MX 10 alt1.google.com.\nalt1.google.com. 60 IN A 127.0.0.1\n")
	w.Now, w.Log = w.clock.Now, slog.New(slog.NewTextHandler(&w.told, nil))
	c := delivery.New(delivery.Options{
		Hostname: "mx.example.test", Port: int(port), Family: "ipv4", Now: w.Now,
		Resolver: dns.New(dns.Options{Servers: []string{names.Addr()}}),
	})
	t.Cleanup(c.Close)
	w.out = NewOutbound(w.Options, c)
	store, err := queue.OpenStore(queue.StoreOptions{Dir: filepath.Join(w.dir, "queue2"), Group: w.out.Group, Log: w.Log})
	if err != nil {
		t.Fatal(err)
	}
	w.queue = queue.New(queue.Options{
		Hostname: "mx.example.test", Lifetime: 120 * time.Hour, Workers: 100, PerGroup: 20, Grace: time.Second, Sign: w.Sign, Log: w.Log, Now: w.Now,
	}, store, w.out)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); w.queue.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return w
}

// reply is the script of Google's server.
func (w *answering) reply(stage, arg string, _ int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[stage] = append(w.asked[stage], arg)
	return w.says[stage]
}

func (w *answering) say(stage, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.says = map[string]string{stage: text}
}

// tried lists whom Google's server was asked to take mail for.
func (w *answering) tried() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.asked["rcpt"])
}

// send queues a message from an alias to local@domain and returns its ID.
func (w *answering) send(local, domain string) string {
	w.t.Helper()
	w.added++
	e := &queue.Envelope{
		ID: fmt.Sprintf("ANSWER%04d", w.added), Received: w.clock.Now(), Source: w.source,
		Recipients: []queue.Recipient{{
			Address: address.Address{Local: local, Domain: domain}, Alias: address.Address{Local: "shop", Domain: "example.test"},
		}},
	}
	if domain == "canary.test" {
		e.Recipients[0].Via = []string{w.canary.Addr()}
	}
	if err := w.queue.Add(e, strings.NewReader(hello)); err != nil {
		w.t.Fatal(err)
	}
	return e.ID
}

// settled waits until all that is due has been looked at: a message that comes last has arrived.
func (w *answering) settled() {
	w.t.Helper()
	before := w.canary.Count()
	w.send("x", "canary.test")
	waitFor(w.t, func() bool { return w.canary.Count() > before && w.queue.Counts().Running == 0 })
	w.send("x", "canary.test")
	waitFor(w.t, func() bool { return w.canary.Count() > before+1 && w.queue.Counts().Running == 0 })
}

// pass lets time go by, and the queue look.
func (w *answering) pass(d time.Duration) {
	w.t.Helper()
	w.clock.Advance(d)
	w.settled()
}

// recipient is that of a message, one that has failed or is delivered if the message is gone.
func (w *answering) recipient(id string) queue.Recipient {
	w.t.Helper()
	e, err := w.queue.Get(id)
	if err != nil {
		return queue.Recipient{}
	}
	return e.Recipients[0]
}

// TestAnswersFromTheDestination: what each of Google's replies does to the message, the group, the
// mailbox, and what the admin hears. A last row is for each reply that is unknown.
func TestAnswersFromTheDestination(t *testing.T) {
	for _, c := range []struct {
		stage, says string
		state       queue.State // "": the message is gone, and its failure was told
		pause       time.Duration
		slow        bool
		advice      string
	}{
		{"dot", "421 4.7.28 Our system has detected an unusual rate of mail from your IP address", queue.Waiting, 10 * time.Minute, false, "less mail from this server"},
		{"mail", "421 4.7.28 unusual rate from your DKIM domain", queue.Waiting, 10 * time.Minute, false, "less mail from this server"},
		{"greeting", "421 4.7.28 unusual rate of SPF domain", queue.Waiting, 10 * time.Minute, false, "less mail from this server"},
		{"dot", "421 4.7.0 This message is suspicious due to the very low reputation of the sending IP", queue.Waiting, 0, false, ""},
		{"dot", "450 4.7.23 The sending IP has no PTR record", queue.Held, 0, false, "PTR record"},
		{"dot", "550 5.7.25 The sending IP does not match", queue.Held, 0, false, "PTR record"},
		{"greeting", "421 4.7.0 [192.0.2.1] has no PTR record", queue.Held, 0, false, "PTR record"},
		{"dot", "550 5.7.1 does not meet IPv6 sending guidelines", queue.Held, 0, false, "IPv6 address"},
		{"dot", "421 4.7.26 Unauthenticated email from x.test is not accepted", queue.Waiting, 0, false, "neither SPF nor DKIM"},
		{"dot", "550 5.7.26 Unauthenticated email from x.test is not accepted due to domain's DMARC policy", "", 0, false, ""},
		{"dot", "421 4.7.27 SPF did not pass", queue.Held, 0, false, "SPF did not pass"},
		{"dot", "550 5.7.29 not sent over a TLS connection", queue.Held, 0, false, "over TLS only"},
		{"dot", "421 4.7.30 DKIM did not pass", queue.Held, 0, false, "DKIM did not pass"},
		{"dot", "421 4.7.32 From: not aligned", queue.Held, 0, false, "dkim-keygen"},
		{"dot", "550 5.7.40 no DMARC record", queue.Held, 0, false, "DMARC record"},
		{"dot", "550 5.7.1 likely unsolicited mail", "", 0, false, ""},
		{"dot", "552 5.7.0 This message was blocked because its content presents a potential security issue", "", 0, false, ""},
		{"rcpt", "450 4.2.1 The user is receiving mail at a rate that prevents additional messages", queue.Waiting, 0, true, ""},
		{"rcpt", "452 4.2.2 The recipient's inbox is out of storage space", queue.Waiting, 0, true, ""},
		{"rcpt", "552 5.2.2 The recipient's inbox is out of storage space", queue.Waiting, 0, true, ""},
		{"rcpt", "550 5.1.1 The email account that you tried to reach does not exist", "", 0, false, "correct the alias"},
		{"rcpt", "550 5.2.1 The email account that you tried to reach is disabled", "", 0, false, "correct the alias"},
		{"dot", "550 5.7.1 Messages with multiple addresses in From: header", "", 0, false, ""},
		{"dot", "552 5.3.4 Your message exceeded the size limits", "", 0, false, ""},
		{"dot", "554 5.4.6 Message exceeded 50 hops", "", 0, false, ""},
		{"rcpt", "451 4.3.0 Multiple destination domains per transaction is unsupported", queue.Waiting, 0, false, ""},
		{"dot", "450 4.9.9 hm", queue.Waiting, 0, false, ""},
		{"dot", "550 5.9.9 hm", "", 0, false, ""},
		{"greeting", "554 5.9.9 hm", queue.Waiting, 0, false, ""},
		{"ehlo", "554 5.1.1 hm", queue.Waiting, 0, false, ""},
	} {
		t.Run(c.stage+" "+c.says, func(t *testing.T) {
			t.Parallel()
			says := map[string]string{c.stage: c.says}
			if c.stage == "ehlo" {
				says["helo"] = c.says
			}
			w := newAnswering(t, says)
			id := w.send("me", "gmail.test")
			waitFor(t, func() bool {
				n := w.queue.Counts()
				return n.Deferred+n.Failed > 0
			})
			r := w.recipient(id)
			if r.State != c.state || c.state != "" && r.Attempts != 1 {
				t.Errorf("the message: %+v", r)
			}
			if c.state == queue.Held && !r.Next.Equal(w.clock.Now().Add(4*time.Hour)) {
				t.Errorf("held until %v", r.Next)
			}
			if paused := w.queue.Paused()["google.com"]; !paused.Equal(w.clock.Now().Add(c.pause)) && (c.pause > 0 || !paused.IsZero()) {
				t.Errorf("the group is paused until %v", paused)
			}
			if slow := !w.out.paces.take(paced{"me@gmail.test", 0}, w.clock.Now()).IsZero(); slow != c.slow {
				t.Errorf("the mailbox waits: %v", slow)
			}
			if warnings := w.out.Warnings(); (len(warnings) == 1) != (c.advice != "") || c.advice != "" && !strings.Contains(warnings[0], c.advice) {
				t.Errorf("the admin is told %q", warnings)
			}
			if logged := strings.Contains(w.told.String(), "is for the admin"); logged != (c.advice != "") {
				t.Errorf("the log: %s", &w.told)
			}
			w.settled() // others have their mail
		})
	}
}

// TestRateReplyStopsTheGroup: for ten minutes, and then exactly one attempt finds out; as soon as mail
// is taken the admin is told no more, and the rest follows.
func TestRateReplyStopsTheGroup(t *testing.T) {
	w := newAnswering(t, map[string]string{"dot": "421 4.7.28 too fast"})
	w.send("a", "gmail.test")
	waitFor(t, func() bool { return w.queue.Counts().Deferred == 1 })
	for _, local := range []string{"b", "c", "d", "e"} {
		w.send(local, "gmail.test")
	}
	for _, step := range []struct {
		after time.Duration
		tries int
	}{{0, 1}, {9 * time.Minute, 1}, {time.Minute, 2}, {9 * time.Minute, 2}} {
		w.pass(step.after)
		waitFor(t, func() bool { return len(w.tried()) >= step.tries })
		if w.settled(); len(w.tried()) != step.tries {
			t.Fatalf("%v later: tried for %q", step.after, w.tried())
		}
	}
	if n := strings.Count(w.told.String(), "is for the admin"); n != 1 || len(w.out.Warnings()) != 1 {
		t.Errorf("the admin is told %d times: %q", n, w.out.Warnings())
	}
	w.say("dot", "")
	w.pass(2 * time.Minute)
	waitFor(t, func() bool { return w.queue.Counts().Delivered >= 4 })
	w.pass(20 * time.Minute)
	waitFor(t, func() bool { return len(slices.Collect(w.queue.List)) == 0 })
	if len(w.out.Warnings()) > 0 || len(w.queue.Paused()) > 0 {
		t.Errorf("%q, %v", w.out.Warnings(), w.queue.Paused())
	}
}

// TestFullMailboxIsSlowedAlone: others at the same provider get their mail, and what waits for it
// is not counted as tried.
func TestFullMailboxIsSlowedAlone(t *testing.T) {
	w := newAnswering(t, map[string]string{"dot": "452 4.2.2 out of storage"})
	w.send("full", "gmail.test")
	waitFor(t, func() bool { return w.queue.Counts().Deferred == 1 })
	w.say("dot", "")
	waiting, other := w.send("Full", "gmail.test"), w.send("other", "gmail.test")
	waitFor(t, func() bool { return w.recipient(other).State == "" })
	waitFor(t, func() bool { return w.recipient(waiting).Next.Equal(w.clock.Now().Add(time.Minute)) })
	if got := w.tried(); !slices.Equal(got, []string{"full@gmail.test", "other@gmail.test"}) {
		t.Fatalf("tried for %q", got)
	}
	if r := w.recipient(waiting); r.Attempts != 0 || len(r.History) > 0 {
		t.Errorf("%+v", r)
	}
	w.pass(time.Minute)
	waitFor(t, func() bool { return w.recipient(waiting).State == "" })
	for range 5 { // it takes mail again
		id := w.send("full", "gmail.test")
		w.pass(2 * time.Second)
		waitFor(t, func() bool { return w.recipient(id).State == "" })
	}
}

// TestFewAttemptsWithABadName: a message that Google thinks suspicious is not repeated for days.
func TestFewAttemptsWithABadName(t *testing.T) {
	w := newAnswering(t, map[string]string{"dot": "421 4.7.0 suspicious due to the low reputation"})
	id := w.send("me", "gmail.test")
	for n := range 6 {
		waitFor(t, func() bool {
			c := w.queue.Counts()
			return int(c.Deferred+c.Failed) == n+1
		})
		if r := w.recipient(id); (r.State == "") != (n == 5) {
			t.Fatalf("after %d attempts: %+v", n+1, r)
		}
		w.pass(4 * time.Hour)
	}
}
