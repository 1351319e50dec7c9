package filter

import (
	"bytes"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/address"
	"relayd/dns"
	"relayd/internal/testnet"
	"relayd/message"
)

// A rig is a Filter with its DNS, its clock and its log.
type rig struct {
	*Filter
	t     testing.TB
	names *testnet.DNS
	clock *testnet.Clock
	log   *logBuffer
}

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

func newRig(t testing.TB, zones string, opt Options) *rig {
	r := &rig{t: t, names: testnet.NewDNS(t, zones), clock: testnet.NewClock(), log: new(logBuffer)}
	opt.Hostname, opt.Now, opt.Log = "mx.example.test", r.clock.Now, slog.New(slog.NewTextHandler(r.log, nil))
	opt.Resolver = dns.New(dns.Options{Servers: []string{r.names.Addr()}, Now: r.clock.Now})
	r.Filter = New(opt)
	return r
}

var client = netip.MustParseAddr("192.0.2.7")

const spam = "From: a@elsewhere.test\r\nSubject: buy\r\n\tnow\r\nX-Odd:\x00x\r\n\r\nBuy now.\r\n.\r\nMore.\r\n"

// text makes a message as it came from a stranger.
func (r *rig) message(text string) *Message {
	r.t.Helper()
	header, err := message.ReadHeader(strings.NewReader(text))
	if err != nil {
		r.t.Fatal(err)
	}
	return &Message{
		ID: "ABCDEFGH1", IP: client, Name: "mail.elsewhere.test", Helo: "he\r\nlo", Sender: address.Address{Local: "ä s", Domain: "elsewhere.test"},
		Recipients: []address.Address{{Local: "shop", Domain: "example.test"}, {Local: "me", Domain: "example.test"}},
		Header:     header, Open: func() io.Reader { return strings.NewReader(text) }, Size: int64(len(text)),
		Source: Source(client, "elsewhere.test"),
	}
}

// judge is the answer to a message, "" where it passes.
func (r *rig) judge(m *Message) string {
	r.t.Helper()
	_, err := r.Judge(r.t.Context(), m)
	if err == nil {
		return ""
	}
	return err.Error()
}

// warns checks that the admin is told of something, "" for nothing at all, and how often the log is.
func (r *rig) warns(want string, logged int) {
	r.t.Helper()
	list := strings.Join(r.Warnings(), "\n")
	if want == "" && list != "" || !strings.Contains(list, want) {
		r.t.Errorf("warnings %q, want %q", list, want)
	}
	if got := strings.Count(r.log.String(), "level=WARN"); got != logged {
		r.t.Errorf("%d lines in the log, want %d:\n%s", got, logged, r.log)
	}
}

func TestTheLogIsToldOnceAMinute(t *testing.T) {
	r := newRig(t, "", Options{})
	for n := range 10 {
		r.troubles.note("x", "y", r.clock.Now())
		r.warns("filter x, since 2026-06-01T12:00:00Z: y", 1+n/4)
		r.clock.Advance(15 * time.Second)
	}
	r.troubles.clear("x")
	r.warns("", 3)
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"", "https://www.example/lookup?ip=192.0.2.7", "a\r\n250 ok\x00\x7fü", " \t a  b ", "\xff\xfe", strings.Repeat("x ", 300)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s, maxReason)
		if len(got) > maxReason || strings.ContainsFunc(got, func(c rune) bool { return c < ' ' || c > '~' }) ||
			strings.TrimSpace(got) != got || strings.Contains(got, "  ") || clean(got, maxReason) != got {
			t.Errorf("%q becomes %q", s, got)
		}
	})
}
