package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/address"
	"relayd/bans"
	"relayd/config"
	"relayd/dkim"
	"relayd/dns"
	"relayd/domains"
	"relayd/filter"
	"relayd/internal/testnet"
	"relayd/mailauth"
	"relayd/message"
	"relayd/queue"
	"relayd/reply"
	"relayd/srs"
	"relayd/users"
)

// A logBuffer may be read while it is written to.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// A house is a relay over files in a temporary folder, with a queue that nobody works on.
type house struct {
	*Inbound
	t     testing.TB
	dir   string
	store *domains.Store
	log   *logBuffer
	keys  []*dkim.Key
	names *testnet.DNS  // that strangers' mail is checked by; it is empty
	later time.Duration // than noon it is for bans
	// requireTLS has deliver ask for REQUIRETLS.
	requireTLS bool
}

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func write(t testing.TB, dir, name, text string) {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (h *house) now() time.Time { return noon.Add(h.later) }

// build makes a house of files (names below the configuration folder) and a key for example.test.
func build(t testing.TB, toml string, files map[string]string) *house {
	h := &house{t: t, dir: t.TempDir(), log: new(logBuffer)}
	conf, err := config.Parse(filepath.Join(h.dir, "relayd.toml"), []byte("hostname = \"mx.example.test\"\n"+toml))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		write(t, h.dir, name, text)
	}
	pem, err := dkim.Generate("ed25519")
	if err != nil {
		t.Fatal(err)
	}
	if files["domains/example.test/aliases"] != "" {
		write(t, h.dir, "domains/example.test/dkim/s1.pem", string(pem))
	}
	log := slog.New(slog.NewTextHandler(h.log, nil))
	h.store = domains.Open(domains.Options{Dir: conf.DomainsDir(), Mailboxes: conf.Mailbox.LMTP != "", Log: log})
	rewriter, err := srs.New(srs.Options{Secrets: [][]byte{[]byte("secret")}})
	if err != nil {
		t.Fatal(err)
	}
	opt := Options{Config: conf, Domains: h.store.Current, SRS: rewriter, Log: log, Now: func() time.Time { return noon },
		Verifier: users.NewVerifier(users.VerifierOptions{Cost: users.MinCost}),
		Bans: bans.Open(bans.Options{
			Load: func() ([]byte, error) { return nil, nil }, Now: func() time.Time { return h.now() }, Log: log,
		})}
	h.names = testnet.NewDNS(t, "")
	opt.Checker = mailauth.New(mailauth.Options{
		Resolver: dns.New(dns.Options{Servers: []string{h.names.Addr()}}), Hostname: conf.Hostname, Now: opt.Now,
	})
	opt.Filter = filter.New(filter.Options{
		DNSBL: conf.Filter.DNSBL, Rspamd: conf.Filter.Rspamd.URL, Milters: conf.Filter.Milter, Hostname: conf.Hostname,
		Resolver: dns.New(dns.Options{Servers: []string{h.names.Addr()}}), Now: func() time.Time { return h.Now() }, Log: log,
	})
	store, err := queue.OpenStore(queue.StoreOptions{Dir: filepath.Join(h.dir, "queue"), Group: func(r *queue.Recipient) string { return r.Address.Domain }, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	q := queue.New(queue.Options{Hostname: conf.Hostname, Lifetime: time.Hour, Workers: 1, PerGroup: 1, Sign: opt.Sign, Log: log}, store, nil)
	h.Inbound = NewInbound(opt, q)
	if d := h.store.Current().Get("example.test"); d != nil {
		h.keys = d.Keys
	}
	return h
}

var exampleTest = map[string]string{
	"domains/example.test/users": "app:" + testHash + "\nsecond:" + testHash + "\ngone:!" + testHash + "\n",
	"domains/example.test/aliases": "me: me@mailbox.test\nteam: a@mailbox.test, b@mailbox.test\nsecond: other@mailbox.test\n" +
		"list: me, team\n*: me@mailbox.test\n",
	"domains/strict.test/aliases": "only: x@mailbox.test\n",
	"domains/strict.test/users":   "solo:" + testHash + "\n",
	"domains/broken.test/aliases": "this is no alias\n",
}

// testHash is of "secret" at cost 4, from htpasswd.
const testHash = "$2y$04$Vv4TgbiYqnfduqQ11ImK5uCbTT9JOWqExfekF0PAB8oLoflETPQMG"

func mailbox(t testing.TB, s string) address.Address {
	t.Helper()
	if s == "" {
		return address.Address{}
	}
	a, err := address.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var stranger = &Client{IP: netip.MustParseAddr("192.0.2.7"), Helo: "client.test", TLS: &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}}

func (h *house) user(name string) *Client {
	return &Client{IP: netip.MustParseAddr("198.51.100.9"), Helo: "my-laptop.home", User: mailbox(h.t, name), Submission: true, TLS: stranger.TLS}
}

// offer takes a message through a transaction and returns the answer.
func (h *house) offer(c *Client, sender string, rcpts []string, text string) (*Transaction, *reply.Reply, error) {
	h.t.Helper()
	tx := NewTransaction(c)
	tx.Sender, tx.RequireTLS = mailbox(h.t, sender), h.requireTLS
	if err := h.Mail(context.Background(), tx); err != nil {
		return tx, nil, err
	}
	for _, r := range rcpts {
		if err := h.Recipient(context.Background(), tx, Recipient{Address: mailbox(h.t, r)}); err != nil {
			return tx, nil, err
		}
	}
	m, err := message.Read(strings.NewReader(text), h.t.TempDir(), 1<<20)
	if err != nil {
		h.t.Fatal(err)
	}
	defer m.Close()
	r, err := h.Accept(context.Background(), tx, m)
	return tx, r, err
}

// deliver is offer for what is to be queued. It returns what is in the queue for it.
func (h *house) deliver(c *Client, sender string, rcpts []string, text string) (*queue.Envelope, string, error) {
	h.t.Helper()
	tx, r, err := h.offer(c, sender, rcpts, text)
	if err != nil {
		return nil, "", err
	}
	if r.String() != "250 2.0.0 Ok: queued as "+tx.ID {
		h.t.Errorf("answered %q", r)
	}
	e, err := h.queue.Get(tx.ID)
	if err != nil {
		return nil, "", err
	}
	body, err := h.queue.Body(tx.ID)
	if err != nil {
		return nil, "", err
	}
	defer body.Close()
	bytes, err := io.ReadAll(body)
	if err != nil {
		h.t.Fatal(err)
	}
	return e, string(bytes), nil
}

// verified lists the domains whose signature of text holds.
func (h *house) verified(text string) []string {
	h.t.Helper()
	results, err := dkim.Verify(context.Background(), strings.NewReader(text), func(_ context.Context, name string) ([]string, error) {
		for _, k := range h.keys {
			if k.Record().Name == name {
				return []string{k.Record().Value}, nil
			}
		}
		return nil, errors.New("no such key")
	})
	if err != nil {
		h.t.Fatal(err)
	}
	var list []string
	for _, r := range results {
		if r.Kind == dkim.Pass {
			list = append(list, r.Domain)
		}
	}
	return list
}

const hello = "From: Stranger <s@elsewhere.test>\r\nTo: shop@example.test\r\nSubject: hello\r\n\r\nHello.\r\n"

func TestForwarding(t *testing.T) {
	h := build(t, "", exampleTest)
	e, body, err := h.deliver(stranger, "s@elsewhere.test", []string{"shop@example.test"}, hello)
	if err != nil {
		t.Fatal(err)
	}
	r := e.Recipients[0]
	if len(e.Recipients) != 1 || r.Address.String() != "me@mailbox.test" || r.Alias.String() != "shop@example.test" {
		t.Errorf("recipients %+v", e.Recipients)
	}
	if !strings.HasPrefix(r.ReturnPath.Local, "SRS0=") || r.ReturnPath.Domain != "example.test" || !strings.HasSuffix(r.ReturnPath.Local, "=elsewhere.test=s") {
		t.Errorf("return-path %s", r.ReturnPath)
	}
	if !strings.HasPrefix(r.Fields, "Delivered-To: shop@example.test\r\nX-Forwarded-To: me@mailbox.test\r\nDKIM-Signature: ") {
		t.Errorf("fields %q", r.Fields)
	}
	if !strings.HasSuffix(body, hello) || !strings.HasPrefix(body, "Authentication-Results: mx.example.test;\r\n") || !strings.Contains(body, "\r\nReceived: from client.test ([192.0.2.7])\r\n\tby mx.example.test (relayd) with ESMTPS id "+e.ID) {
		t.Errorf("body %q", body)
	}
	if got := h.verified(r.Fields + body); !slices.Equal(got, []string{"example.test"}) {
		t.Errorf("signed by %q", got)
	}
	if e.Authentic {
		t.Error("a stranger's reverse-path is taken for real")
	}
}

// Copies for many addresses at one destination are one body, signed and with nothing in it that tells
// them apart; those for others keep their fields.
func TestManyCopiesForOneDestinationShareABody(t *testing.T) {
	for many, want := range map[int]int{toldApart: toldApart, toldApart + 1: 1} {
		aliases, to := "other: me@else.test\n", []string{"other@example.test"}
		for i := range many {
			aliases += fmt.Sprintf("a%d: u%[1]d@mailbox.test\n", i)
			to = append(to, fmt.Sprintf("a%d@example.test", i))
		}
		h := build(t, "", map[string]string{"domains/example.test/aliases": aliases})
		e, body, err := h.deliver(stranger, "s@elsewhere.test", to, hello)
		if err != nil {
			t.Fatal(err)
		}
		bodies := map[string]bool{}
		for _, r := range e.Recipients[1:] {
			bodies[r.Fields] = true
			if got := h.verified(r.Fields + body); !slices.Equal(got, []string{"example.test"}) {
				t.Errorf("signed by %q", got)
			}
		}
		if len(bodies) != want || len(e.Recipients) != many+1 {
			t.Errorf("%d copies are %d bodies, want %d", len(e.Recipients), len(bodies), want)
		}
		if f := e.Recipients[0].Fields; !strings.HasPrefix(f, "Delivered-To: other@example.test\r\nX-Forwarded-To: me@else.test\r\n") {
			t.Errorf("fields of the other: %q", f)
		}
	}
}

// A list whose members lead back to it would make as many copies again at each pass, and again; by the
// address that the copies came for they are stopped at the third.
func TestManyCopiesOfAListSayForWhichAddressTheyAre(t *testing.T) {
	var members []string
	for i := range toldApart + 1 {
		members = append(members, fmt.Sprintf("u%d@mailbox.test", i))
	}
	h := build(t, "", map[string]string{"domains/example.test/aliases": "list: " + strings.Join(members, ", ") + "\n"})
	msg := hello
	for pass := range 3 {
		e, body, err := h.deliver(stranger, "s@elsewhere.test", []string{"list@example.test"}, msg)
		if pass == 2 {
			if err == nil || !strings.HasPrefix(reply.From(err).String(), "554 5.4.6") {
				t.Errorf("it goes on: %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range e.Recipients {
			if r.Fields != e.Recipients[0].Fields {
				t.Errorf("copies are told apart: %q", r.Fields)
			}
		}
		msg = e.Recipients[0].Fields + body
	}
}

func TestOneCopyPerMailbox(t *testing.T) {
	h := build(t, "", exampleTest)
	e, _, err := h.deliver(stranger, "s@elsewhere.test", []string{"shop@example.test", "me@example.test", "list@example.test"}, hello)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range e.Recipients {
		got = append(got, r.Address.String())
	}
	if want := []string{"me@mailbox.test", "a@mailbox.test", "b@mailbox.test"}; !slices.Equal(got, want) {
		t.Errorf("copies to %q, want %q", got, want)
	}
	for _, name := range []string{"shop", "me", "list"} {
		if !strings.Contains(e.Recipients[0].Fields, "Delivered-To: "+name+"@example.test\r\n") {
			t.Errorf("%s is not named in %q", name, e.Recipients[0].Fields)
		}
	}
}

func TestRefusedRecipients(t *testing.T) {
	h := build(t, "", exampleTest)
	for rcpt, want := range map[string]string{
		"a@elsewhere.test":                       "550 5.7.1",
		"nobody@strict.test":                     "550 5.1.1",
		"solo@strict.test":                       "550 5.1.1", // a user without a mailbox is no answer
		"a@broken.test":                          "451 4.3.0",
		"postmaster@broken.test":                 "451 4.3.0",
		"SRS0=AAAAAAAA=BB=x.test=a@example.test": "550 5.1.1",
		"srs1+AAAAAAAA=x.test==b=c@example.test": "550 5.1.1",
	} {
		_, _, err := h.deliver(stranger, "s@elsewhere.test", []string{rcpt}, hello)
		if got := reply.From(err); err == nil || !strings.HasPrefix(got.String(), want) {
			t.Errorf("%s: got %v, want %s", rcpt, err, want)
		}
	}
}

func TestABrokenDomainSpoilsOnlyWhatLeadsThere(t *testing.T) {
	files := map[string]string{"domains/ok.test/aliases": "there: x@broken.test\nboth: y@mailbox.test, x@broken.test\nhere: x@mailbox.test\n", "domains/broken.test/aliases": "no\n"}
	h := build(t, "", files)
	for rcpt, want := range map[string]string{"there@ok.test": "451 4.3.0", "both@ok.test": "451 4.3.0", "nobody@ok.test": "550 5.1.1"} {
		_, _, err := h.deliver(stranger, "", []string{rcpt}, hello)
		if err == nil || !strings.HasPrefix(reply.From(err).String(), want) {
			t.Errorf("%s: %v, want %s", rcpt, err, want)
		}
	}
	if _, _, err := h.deliver(stranger, "", []string{"here@ok.test"}, hello); err != nil {
		t.Error(err)
	}
}

func TestPostmasterIsAlwaysTaken(t *testing.T) {
	h := build(t, "", exampleTest)
	e, _, err := h.deliver(stranger, "s@elsewhere.test", []string{"Postmaster@strict.test"}, hello)
	if err != nil {
		t.Fatal(err)
	}
	if r := e.Recipients[0]; r.State != queue.Held || r.Address.String() != "Postmaster@strict.test" {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(h.log.String(), "is held") {
		t.Error("nobody is warned")
	}
	h = build(t, "postmaster = \"admin@elsewhere.test\"\n", exampleTest)
	for _, rcpt := range []string{"abuse@strict.test", "postmaster@mx.example.test"} {
		e, _, err = h.deliver(stranger, "s@elsewhere.test", []string{rcpt}, hello)
		if err != nil {
			t.Fatal(err)
		}
		if r := e.Recipients[0]; r.Address.String() != "admin@elsewhere.test" {
			t.Errorf("%s leads to %+v", rcpt, r)
		}
	}
}

func TestSubmission(t *testing.T) {
	h := build(t, "", exampleTest)
	text := "From: Shop <hello@example.test>\r\nSubject: x\r\n\r\nHi\r\n"
	e, body, err := h.deliver(h.user("app@example.test"), "hello@example.test", []string{"a@elsewhere.test", "team@example.test"}, text)
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Recipients) != 3 || !e.Authentic {
		t.Errorf("%+v", e)
	}
	for _, r := range e.Recipients {
		if r.ReturnPath.String() != "hello@example.test" {
			t.Errorf("%s leaves under %s: what a user submits is not rewritten", r.Address, r.ReturnPath)
		}
	}
	if strings.Contains(body, "198.51.100.9") || strings.Contains(body, "laptop") {
		t.Errorf("the user's whereabouts are told: %q", body)
	}
	if got := h.verified(body); !slices.Equal(got, []string{"example.test"}) {
		t.Errorf("signed by %q", got)
	}
	for _, field := range []string{"Date: Sun, 22 Nov 2026 12:00:00 +0000\r\n", "Message-ID: <" + e.ID + "@example.test>\r\n", "with ESMTPSA id " + e.ID} {
		if !strings.Contains(body, field) {
			t.Errorf("no %q in %q", field, body)
		}
	}
	if !strings.HasSuffix(body, text) {
		t.Errorf("changed: %q", body)
	}
}

func TestWhoMaySendAsWhom(t *testing.T) {
	files := map[string]string{
		"domains/own.test/users":       "app:" + testHash + "\n",
		"domains/own.test/aliases":     "*: me@mailbox.test\n",
		"domains/own.test/domain.toml": "sender_policy = \"own\"\n",
		"domains/any.test/users":       "app:" + testHash + "\nother:" + testHash + "\n",
		"domains/any.test/domain.toml": "sender_policy = \"domain\"\nsend_as = { app = [\"news@outside.test\", \"*@brand.test\"] }\n",
		"domains/any.test/aliases":     "x: y@mailbox.test\n",
		"domains/dots.test/users":      "john.doe:" + testHash + "\napp:" + testHash + "\n",
		"domains/dots.test/aliases":    "*: me@mailbox.test\n",
		"domains/example.test/users":   exampleTest["domains/example.test/users"],
		"domains/example.test/aliases": exampleTest["domains/example.test/aliases"],
		"domains/strict.test/users":    exampleTest["domains/strict.test/users"],
		"domains/strict.test/aliases":  exampleTest["domains/strict.test/aliases"],
	}
	h := build(t, "", files)
	for _, c := range []struct {
		user, as string
		ok       bool
	}{
		{"app@example.test", "app@example.test", true},
		{"app@example.test", "APP@EXAMPLE.test", true},
		{"app@example.test", "app+tag@example.test", true},
		{"app@example.test", "hello@example.test", true}, // the catch-all leads to the same mailbox
		{"app@example.test", "me@example.test", true},
		{"app@example.test", "team@example.test", false}, // other targets
		{"app@example.test", "second@example.test", false},
		{"app@example.test", "second+x@example.test", false},
		{"app@example.test", "gone@example.test", false}, // disabled, and still somebody else
		{"app@example.test", "app@strict.test", false},
		{"app@example.test", "x@elsewhere.test", false},
		{"second@example.test", "second@example.test", true},
		{"second@example.test", "hello@example.test", false},
		{"solo@strict.test", "solo@strict.test", true},
		{"solo@strict.test", "only@strict.test", false},
		{"app@own.test", "app+x@own.test", true},
		{"app@own.test", "hello@own.test", false},
		{"app@any.test", "anything@any.test", true},
		{"app@any.test", "news@outside.test", true},
		{"app@any.test", "other@outside.test", false},
		{"app@any.test", "all@brand.test", true},
		{"other@any.test", "news@outside.test", false},
		{"app@dots.test", "johndoe@dots.test", false},
		{"app@dots.test", "j.ohn.doe+x@dots.test", false},
	} {
		_, _, err := h.deliver(h.user(c.user), c.as, []string{"a@elsewhere.test"}, "From: "+c.as+"\r\n\r\n")
		got := reply.From(err)
		if (err == nil) != c.ok || !c.ok && (got.Code != 550 || got.Enhanced != "5.7.1" || !strings.Contains(got.Text, c.as)) {
			t.Errorf("%s as %s: %v", c.user, c.as, err)
		}
		_, _, err = h.deliver(h.user(c.user), "", []string{"a@elsewhere.test"}, "From: "+c.as+"\r\n\r\n")
		if (err == nil) != c.ok {
			t.Errorf("%s with From %s: %v", c.user, c.as, err)
		}
	}
}

func TestFromOfSubmissions(t *testing.T) {
	h := build(t, "", exampleTest)
	for text, want := range map[string]string{
		"Subject: x\r\n\r\n": "550 5.7.1 The message has no From field",
		"From: app@example.test\r\nFrom: x@elsewhere.test\r\n\r\n": "550 5.7.1 The message must have exactly one From",
		"From: app@example.test, x@elsewhere.test\r\n\r\n":         "550 5.7.1 The message must have exactly one From",
		"From: nonsense\r\n\r\n":                                   "550 5.7.1 The From field is not an address",
		"From: \"app@example.test\" <x@elsewhere.test>\r\n\r\n":    "550 5.7.1 <app@example.test> may not send as <x@elsewhere.test>",
	} {
		_, _, err := h.deliver(h.user("app@example.test"), "app@example.test", []string{"a@elsewhere.test"}, text)
		if err == nil || !strings.HasPrefix(reply.From(err).String(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestBouncesFindTheirWayBack(t *testing.T) {
	h := build(t, "", exampleTest)
	e, _, err := h.deliver(stranger, "s@elsewhere.test", []string{"shop@example.test"}, hello)
	if err != nil {
		t.Fatal(err)
	}
	back := e.Recipients[0].ReturnPath.String()
	e, _, err = h.deliver(stranger, "", []string{back}, hello)
	if err != nil {
		t.Fatal(err)
	}
	if r := e.Recipients[0]; r.Address.String() != "s@elsewhere.test" || !r.ReturnPath.IsNull() {
		t.Errorf("the bounce goes to %+v", r)
	}
	if _, _, err := h.deliver(stranger, "x@elsewhere.test", []string{back}, hello); err == nil || reply.From(err).Code != 550 {
		t.Errorf("mail that is no bounce came through: %v", err)
	}
}

func TestFieldsThatASignatureCoversAreLeftOut(t *testing.T) {
	h := build(t, "", exampleTest)
	text := "DKIM-Signature: v=1; h=From:Delivered-To :\r\n\tx-forwarded-to; b=\r\n" + hello
	e, _, err := h.deliver(stranger, "s@elsewhere.test", []string{"shop@example.test"}, text)
	if err != nil {
		t.Fatal(err)
	}
	if f := e.Recipients[0].Fields; strings.Contains(f, "Delivered-To") || strings.Contains(f, "X-Forwarded-To") {
		t.Errorf("fields %q", f)
	}
}

func TestSecondAliasDoesNotBreakASignature(t *testing.T) {
	h := build(t, "", exampleTest)
	e, _, err := h.deliver(stranger, "s@elsewhere.test", []string{"x@example.test", "y@example.test"}, "DKIM-Signature: v=1; h=From:Delivered-To; b=\r\n"+hello)
	if err != nil {
		t.Fatal(err)
	}
	if f := e.Recipients[0].Fields; len(e.Recipients) != 1 || strings.Contains(f, "Delivered-To") {
		t.Errorf("fields %q", f)
	}
}

func TestLimitsByTheHour(t *testing.T) {
	h := build(t, "[limits]\nuser_messages_per_hour = 2\ncatchall_addresses = 2\n", exampleTest)
	now := noon
	h.Now = func() time.Time { return now }
	h.limits = newLimits(h.Now)
	submit := func() error {
		_, _, err := h.deliver(h.user("app@example.test"), "app@example.test", []string{"a@elsewhere.test"}, "From: app@example.test\r\n\r\n")
		return err
	}
	try := func(to string) error {
		_, _, err := h.deliver(stranger, "s@elsewhere.test", []string{to}, hello)
		return err
	}
	for range 2 {
		for n, err := range []error{submit(), submit(), try("a1@example.test"), try("a2@example.test"), try("A1@example.test"), try("me@example.test")} {
			if err != nil {
				t.Errorf("%d: %v", n, err)
			}
		}
		if err := submit(); err == nil || !strings.HasPrefix(err.Error(), "450 4.7.1") {
			t.Errorf("the third message: %v", err)
		}
		if err := try("a3@example.test"); err == nil || !strings.HasPrefix(err.Error(), "450 4.2.1") {
			t.Errorf("the third address: %v", err)
		}
		if err := try("team@example.test"); err != nil {
			t.Errorf("an address with an alias of its own: %v", err)
		}
		now = now.Add(time.Hour)
	}
}

func TestAUserMayHaveALimitOfItsOwn(t *testing.T) {
	files := maps.Clone(exampleTest)
	files["domains/example.test/domain.toml"] = "messages_per_hour = { App = 3, second = 0 }\n"
	h := build(t, "[limits]\nuser_messages_per_hour = 1\n", files)
	for n := range 5 {
		for user, limit := range map[string]int{"app@example.test": 3, "second@example.test": 5} {
			_, _, err := h.deliver(h.user(user), user, []string{"a@elsewhere.test"}, "From: "+user+"\r\n\r\n")
			if (err == nil) != (n < limit) {
				t.Errorf("message %d of %s: %v", n+1, user, err)
			}
			if err != nil && !strings.Contains(err.Error(), "has sent the 3 messages") {
				t.Error(err)
			}
		}
	}
}

func TestASourceMayNotGuessAddressesForEver(t *testing.T) {
	h := build(t, "", exampleTest)
	now := noon
	h.limits = newLimits(func() time.Time { return now })
	try := func(ip, to string) string {
		tx := NewTransaction(&Client{IP: netip.MustParseAddr(ip)})
		if err := h.Mail(context.Background(), tx); err != nil {
			t.Fatal(err)
		}
		if err := h.Recipient(context.Background(), tx, Recipient{Address: mailbox(t, to)}); err != nil {
			return reply.From(err).String()[:9]
		}
		return ""
	}
	for n := range maxUnknown {
		if got := try("192.0.2.7", fmt.Sprintf("guess%d@strict.test", n)); got != "550 5.1.1" {
			t.Fatalf("guess %d: %q", n, got)
		}
	}
	for to, want := range map[string]string{"guess@strict.test": "450 4.7.1", "only@strict.test": "450 4.7.1"} {
		if got := try("192.0.2.7", to); got != want {
			t.Errorf("%s: %q, want %q", to, got, want)
		}
	}
	if got := try("192.0.2.8", "only@strict.test"); got != "" {
		t.Errorf("from elsewhere: %q", got)
	}
	if now = now.Add(time.Hour); try("192.0.2.7", "only@strict.test") != "" {
		t.Error("an hour later it is still refused")
	}
}

func TestPostmasterThatLeadsNowhereIsToldOf(t *testing.T) {
	for _, setting := range []string{"", "postmaster = \"nobody@strict.test\"\n", "postmaster = \"postmaster@strict.test\"\n"} {
		h := build(t, setting, map[string]string{"domains/strict.test/aliases": exampleTest["domains/strict.test/aliases"]})
		if w := CheckPostmaster(h.Config, h.Domains()); len(w) != 1 || !strings.Contains(w[0].Reason, "postmaster@strict.test") {
			t.Errorf("%q: warnings %v", setting, w)
		}
	}
}

func TestLoopsEnd(t *testing.T) {
	h := build(t, "", exampleTest)
	received := "Received: from a by b; Sun, 22 Nov 2026 12:00:00 +0000\r\n"
	if _, _, err := h.deliver(stranger, "", []string{"shop@example.test"}, strings.Repeat(received, 50)+hello); err != nil {
		t.Error("50 Received fields:", err)
	}
	if _, _, err := h.deliver(stranger, "", []string{"shop@example.test"}, strings.Repeat(received, 51)+hello); err == nil || !strings.HasPrefix(reply.From(err).String(), "554 5.4.6") {
		t.Error("51 Received fields:", err)
	}
	ours := "Received: from a (b.test [192.0.2.1])\r\n\tby MX.example.test (relayd) with ESMTPS id X\r\n\tfor <a@b.test>; Sun, 22 Nov 2026 12:00:00 +0000\r\n"
	if _, _, err := h.deliver(stranger, "", []string{"shop@example.test"}, strings.Repeat(ours+received, 5)+hello); err != nil {
		t.Error("here for the sixth time:", err)
	}
	if _, _, err := h.deliver(stranger, "", []string{"shop@example.test"}, strings.Repeat(ours+received, 6)+hello); err == nil || !strings.HasPrefix(reply.From(err).String(), "554 5.4.6") {
		t.Error("here for the seventh time:", err)
	}
	delivered := "Delivered-To: Shop@Example.test\r\nReceived: by b\r\nDelivered-To: me@mailbox.test\r\n"
	for rcpt, want := range map[string]map[int]string{
		"shop@example.test": {0: "", 1: "", 2: "554 5.4.6"}, "other@example.test": {2: ""},
	} {
		for times, want := range want {
			got := ""
			if _, _, err := h.deliver(stranger, "", []string{rcpt}, strings.Repeat(delivered, times)+hello); err != nil {
				got = reply.From(err).String()[:9]
			}
			if got != want {
				t.Errorf("%s, which it was delivered to %d times: %q, want %q", rcpt, times, got, want)
			}
		}
	}
}

func TestLogins(t *testing.T) {
	h := build(t, "", exampleTest)
	var refusals []string
	for i, c := range []struct {
		user, password string
		want           int
	}{
		{"app@example.test", "secret", 0}, {"APP@Example.Test", "secret", 0},
		{"app@example.test", "wrong", 535}, {"gone@example.test", "secret", 535}, {"nobody@example.test", "secret", 535},
		{"app", "secret", 535}, {"app@elsewhere.test", "secret", 535}, {"", "", 535},
	} {
		from := &Client{IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}
		user, err := h.Login(context.Background(), from, c.user, c.password)
		if c.want == 0 {
			if err != nil || user.String() != "app@example.test" {
				t.Errorf("%s: %v, %v", c.user, user, err)
			}
			continue
		}
		r := reply.From(err)
		if err == nil || r.Code != c.want || r.Enhanced != "5.7.8" {
			t.Errorf("%s: %v", c.user, err)
		}
		if hosted := strings.HasSuffix(c.user, "@example.test"); hosted && user.String() != c.user || !hosted && !user.IsNull() {
			t.Errorf("%s: %q may stand in the log", c.user, user)
		}
		refusals = append(refusals, fmt.Sprint(r))
	}
	if len(slices.Compact(refusals)) != 1 {
		t.Errorf("refusals differ: %q", refusals)
	}
}
