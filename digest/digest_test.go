package digest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	netmail "net/mail"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/address"
)

// A disk keeps what a book saves.
type disk struct {
	data  []byte
	saves int
}

func (d *disk) open(t testing.TB) *Book {
	t.Helper()
	return Open(Options{
		Hostname: "mx.example.test", Now: time.Now, Log: slog.New(slog.DiscardHandler),
		Load: func() ([]byte, error) { return d.data, nil },
		Save: func(data []byte) error { d.data = data; d.saves++; return nil },
	})
}

// A post office keeps what was sent, by domain.
type office struct {
	sent map[string][]string
	at   []time.Time
	err  error
}

func (o *office) send(domain string, text []byte) error {
	if o.err != nil {
		return o.err
	}
	if o.sent == nil {
		o.sent = map[string][]string{}
	}
	o.sent[domain] = append(o.sent[domain], string(text))
	o.at = append(o.at, time.Now())
	return nil
}

func addr(t testing.TB, s string) address.Address {
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

func entry(t testing.TB, alias, sender, reply string) Entry {
	t.Helper()
	return Entry{ID: "ABCDEFGH", Alias: addr(t, alias), Target: addr(t, "me@mailbox.test"), Sender: addr(t, sender), Reply: reply}
}

// run has a book work for a time.
func run(b *Book, o *office, d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	b.Run(ctx, o.send)
}

// TestOneDigestADay: in the hour from 05:00 UTC, for each domain of which there is something to tell.
func TestOneDigestADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, o := new(disk).open(t), new(office)
		run(b, o, 48*time.Hour)
		if len(o.sent) > 0 {
			t.Fatalf("there was nothing to tell: %q", o.sent)
		}
		b.Note(entry(t, "shop@example.test", "s@elsewhere.test", "550 5.1.1 no such user"))
		b.Note(entry(t, "Shop@example.test", "", "550 5.1.1 still no such user"))
		b.Note(entry(t, "a@other.test", "s@elsewhere.test", "554 5.4.7 given up"))
		run(b, o, 72*time.Hour)
		if len(o.sent["example.test"]) != 1 || len(o.sent["other.test"]) != 1 || len(o.at) != 2 {
			t.Fatalf("sent %q", o.sent)
		}
		for _, at := range o.at {
			if at.UTC().Hour() != 5 {
				t.Errorf("sent at %v", at.UTC())
			}
		}
		for _, want := range []string{
			"To: <postmaster@example.test>\r\n", "From: Mail Delivery System <MAILER-DAEMON@example.test>\r\n", "Auto-Submitted: auto-generated\r\n",
			"Subject: 2 messages that could not be forwarded\r\n",
			"\r\nFor shop@example.test, to me@mailbox.test\r\n    550 5.1.1 still no such user\r\n    2000-01-03 00:00  from <s@elsewhere.test>  (ABCDEFGH)\r\n    2000-01-03 00:00  from <>  (ABCDEFGH)\r\n\r\n",
		} {
			if !strings.Contains(o.sent["example.test"][0], want) {
				t.Errorf("no %q in %s", want, o.sent["example.test"][0])
			}
		}
		for range 3 { // one a day, however often something fails
			for range 24 {
				b.Note(entry(t, "shop@example.test", "s@elsewhere.test", "550 5.1.1 no such user"))
				run(b, o, time.Hour)
			}
		}
		if n := len(o.sent["example.test"]); n != 4 {
			t.Errorf("%d digests in all", n)
		}
	})
}

// TestWhatWasNotedIsKept over a restart and over an office that is closed, and is told once.
func TestWhatWasNotedIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, o := new(disk), &office{err: errors.New("no room")}
		b := d.open(t)
		b.Note(entry(t, "shop@example.test", "s@elsewhere.test", "550 5.1.1 no such user"))
		run(b, o, 2*time.Minute)
		if d.saves != 1 {
			t.Errorf("saved %d times", d.saves)
		}
		b.Note(entry(t, "shop@example.test", "t@elsewhere.test", "550 5.1.1 no such user"))
		b.Close()
		b = d.open(t)
		run(b, o, 24*time.Hour)
		b = d.open(t)
		o.err = nil
		run(b, o, 24*time.Hour)
		run(d.open(t), o, 24*time.Hour)
		if len(o.sent["example.test"]) != 1 || !strings.Contains(o.sent["example.test"][0], "<t@elsewhere.test>") {
			t.Errorf("sent %q", o.sent)
		}
	})
}

// What fails while a digest is being sent, in vain, is not lost.
func TestNotedWhileSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, o := new(disk).open(t), new(office)
		e := entry(t, "shop@example.test", "s@elsewhere.test", "550 5.1.1 no such user")
		b.Note(e)
		time.Sleep(24 * time.Hour)
		b.sendDue(func(string, []byte) error { b.Note(e); return errors.New("no room") })
		run(b, o, 24*time.Hour)
		if len(o.sent["example.test"]) != 1 || !strings.Contains(o.sent["example.test"][0], "Subject: 2 messages ") {
			t.Errorf("sent %q", o.sent)
		}
	})
}

func TestDamagedStateIsForgotten(t *testing.T) {
	for _, data := range []string{"", "{", "null", `{"example.test":null}`, `{"example.test":{"groups":[null]}}`, `{"example.test":7}`} {
		synctest.Test(t, func(t *testing.T) {
			b, o := (&disk{data: []byte(data)}).open(t), new(office)
			b.Note(entry(t, "shop@example.test", "s@elsewhere.test", "550 5.1.1 no such user"))
			run(b, o, 24*time.Hour)
			if len(o.sent["example.test"]) != 1 {
				t.Errorf("%s: sent %q", data, o.sent)
			}
		})
	}
}

// TestBounds: however much fails, the digest is short, says how much is missing, and a wave to one alias
// leaves room for another.
func TestBounds(t *testing.T) {
	for name, alias := range map[string]func(n int) string{
		"one alias":    func(int) string { return "shop@example.test" },
		"many aliases": func(n int) string { return fmt.Sprintf("a%d@example.test", n) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d, o := new(disk), new(office)
				b := d.open(t)
				const failures = 2000
				for n := range failures {
					b.Note(entry(t, alias(n), fmt.Sprintf("s%d@elsewhere.test", n), fmt.Sprintf("550 5.1.1 %d %s", n, strings.Repeat("x", 1000))))
				}
				b.Note(entry(t, "last@example.test", "s@elsewhere.test", "550 5.7.1 spam"))
				run(b, o, 24*time.Hour)
				text := o.sent["example.test"][0]
				_, body, _ := strings.Cut(text, "\r\n\r\n")
				if n := strings.Count(body, "\r\n"); n > maxLines+8 || len(text) > 150_000 {
					t.Errorf("%d lines, %d bytes", n, len(text))
				}
				listed, more := strings.Count(body, "  from <"), 0
				for line := range strings.SplitSeq(body, "\r\n") {
					n := 0
					if _, err := fmt.Sscanf(strings.TrimSpace(line), "and %d more", &n); err == nil {
						more += n
					}
				}
				if listed+more != failures+1 {
					t.Errorf("%d are listed, %d more counted", listed, more)
				}
				if strings.Contains(body, "last@example.test") != (name == "one alias") {
					t.Error("who is listed last")
				}
			})
		})
	}
}

// FuzzFormat: whatever a sender or a server said, the header has our fields and no others, every line is
// one of ours and short enough, and there is no bare CR or LF.
func FuzzFormat(f *testing.F) {
	f.Add("550 5.1.1 no\r\n.\r\nFrom: x", "a\r\nBcc: b", "me", "x")
	f.Add("550\n\nBcc: all@x.test\n", "\u2028Bcc: x", "m\x00e", "\r\n\r\n")
	f.Add(strings.Repeat("\xff", 1000), strings.Repeat("ü", 500), strings.Repeat("\"", 600), "")
	f.Fuzz(func(t *testing.T, reply, sender, target, alias string) {
		now := time.Date(2026, 11, 22, 5, 0, 0, 0, time.UTC)
		p := &page{Since: now}
		p.note(Entry{
			ID: reply, Alias: address.Address{Local: alias, Domain: "example.test"}, Target: address.Address{Local: target, Domain: "mailbox.test"},
			Sender: address.Address{Local: sender, Domain: "elsewhere.test"}, Reply: reply,
		}, now)
		text := string(p.format("example.test", "mx.example.test", now))
		if n := strings.Count(text, "\r\n"); strings.Count(text, "\r") != n || strings.Count(text, "\n") != n || strings.ContainsAny(text, "\x00\u2028\u2029\u0085") {
			t.Fatalf("bare line ends in %q", text)
		}
		m, err := netmail.ReadMessage(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		fields := 8
		if m.Header.Get("Content-Transfer-Encoding") != "" {
			fields++
		}
		if _, err := m.Header.Date(); len(m.Header) != fields || err != nil || m.Header.Get("To") != "<postmaster@example.test>" {
			t.Errorf("%d fields, %v: %q", len(m.Header), err, text)
		}
		if kind, _, err := mime.ParseMediaType(m.Header.Get("Content-Type")); kind != "text/plain" || err != nil {
			t.Errorf("%s, %v", kind, err)
		}
		body, _ := io.ReadAll(m.Body)
		lines := strings.Split(string(body), "\r\n")
		for _, l := range lines {
			if len(l) > 998 {
				t.Errorf("a line of %d octets", len(l))
			}
		}
		if len(lines) != 10 || !strings.HasPrefix(lines[2], "For ") || !strings.HasPrefix(lines[3], "    ") || !strings.HasPrefix(lines[4], "    2026-11-22 05:00  from <") {
			t.Errorf("lines %q", lines)
		}
	})
}
