package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"relayd/address"
)

// written is what one line becomes, without its time.
func written(p Privacy, write func(*slog.Logger)) string {
	var out bytes.Buffer
	text := slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey && groups == nil {
			return slog.Attr{}
		}
		return a
	}})
	write(slog.New(New(text, p)))
	return strings.TrimSpace(out.String())
}

func TestOneLineAtEachLevel(t *testing.T) {
	write := func(log *slog.Logger) {
		log.Info("refused", "id", "4kZx9Qw2Ab", "client", "192.0.2.7", "from", "<bob@else.example>", "to", `<ann@a.example>, <"a, b"@b.example>`,
			"host", "mx.b.example [2001:db8::1]:25", "reply", "550 5.1.1 User BOB unknown at 10:53:47, says mx.b.example (192.0.2.7)", "attempts", 2)
	}
	for p, want := range map[Privacy]string{
		Full: `level=INFO msg=refused id=4kZx9Qw2Ab client=192.0.2.7 from=<bob@else.example> to="<ann@a.example>, <\"a, b\"@b.example>"` +
			` host="mx.b.example [2001:db8::1]:25" reply="550 5.1.1 User BOB unknown at 10:53:47, says mx.b.example (192.0.2.7)" attempts=2`,
		NoIP: `level=INFO msg=refused id=4kZx9Qw2Ab client=… from=<bob@else.example> to="<ann@a.example>, <\"a, b\"@b.example>"` +
			` host="mx.b.example […]:25" reply="550 5.1.1 User BOB unknown at 10:53:47, says mx.b.example (…)" attempts=2`,
		NoAddress: `level=INFO msg=refused id=4kZx9Qw2Ab client=… from=<…@else.example> to="<…@a.example>, <…@b.example>"` +
			` host="mx.b.example […]:25" reply="550 5.1.1 User … unknown at 10:53:47, says mx.b.example (…)" attempts=2`,
		None: `level=INFO msg=refused id=4kZx9Qw2Ab client=… from=… to=… host=… reply="550 5.1.1 User … unknown at 10:53:47, says … (…)" attempts=2`,
	} {
		if got := written(p, write); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", p, got, want)
		}
	}
}

func TestScrub(t *testing.T) {
	for _, tt := range []struct{ text, noIP, noAddress, none string }{
		{"plain words, 5.1.1 at 10:53:47", "plain words, 5.1.1 at 10:53:47", "plain words, 5.1.1 at 10:53:47", "plain words, 5.1.1 at 10:53:47"},
		{"mail for a.b+c@x.org is held: see `postmaster` in relayd.toml", "mail for a.b+c@x.org is held: see `postmaster` in relayd.toml",
			"mail for …@x.org is held: see `postmaster` in relayd.toml", "mail for … is held: see `postmaster` in relayd.toml"},
		{`to "a b"@x.org`, `to "a b"@x.org`, `to …@x.org`, `to …`},
		{`"\"a b\"@x.org: bad"`, `"\"a b\"@x.org: bad"`, `…@x.org: bad"`, `…: bad"`},
		{`cut off b"@x.org`, `cut off b"@x.org`, `…@x.org`, `…`},
		{`"a@b"@x.org`, `"a@b"@x.org`, `…@x.org`, `…`},
		{"SRS0=Hash=TT=else.org=bob@x.org or srs1=h=g==t=else.org=bob", "SRS0=Hash=TT=else.org=bob@x.org or srs1=h=g==t=else.org=bob", "…@x.org or …", "… or …"},
		{"añil@bücher.example", "añil@bücher.example", "…@bücher.example", "…"},
		{"a@[192.0.2.1] and a@[IPv6:2001:db8::1]", "a@[…] and a@[IPv…]", "…@[…] and …@[IPv…]", "… and …"},
		{"dial tcp 192.0.2.1:25: i/o timeout", "dial tcp …:25: i/o timeout", "dial tcp …:25: i/o timeout", "dial tcp …:25: i/o timeout"},
		{"[::ffff:192.0.2.1]:25, 1:2:3:4:5:6:7:8, fe80::1%eth0, ::", "[…]:25, …, …%eth0, ::", "[…]:25, …, …%eth0, ::", "[…]:25, …, …%eth0, ::"},
		{"7.2.0.192.zen.example, dsl-192-0-2-7.x.org", "….zen.example, dsl-….x.org", "….zen.example, dsl-….x.org", "….…, dsl-….…"},
		{"1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "….ip6.arpa", "….ip6.arpa", "….…"},
	} {
		for p, want := range map[Privacy]string{NoIP: tt.noIP, NoAddress: tt.noAddress, None: tt.none} {
			if got := newScrubber(p).scrub(tt.text); got != want {
				t.Errorf("%s: %s\ngot  %s\nwant %s", p, tt.text, got, want)
			}
		}
	}
}

func TestValuesOfEveryKind(t *testing.T) {
	got := written(NoAddress, func(log *slog.Logger) {
		log.With("user", "bob@x.org").WithGroup("g").Info("no bob here",
			"client", netip.MustParseAddr("192.0.2.1"), "error", fmt.Errorf("reading: %w", errors.New("ann@x.org gone")),
			"panic", any(errors.New("192.0.2.1")), "n", 5, "nothing", nil, "list", []string{"ann@x.org", "1.2.3.4"},
			slog.Group("deep", "to", "<ann@x.org>", "reply", "ann, bob"))
	})
	want := `level=INFO msg="no … here" user=…@x.org g.client=… g.error="reading: …@x.org gone" g.panic=… g.n=5 g.nothing=<nil>` +
		` g.list="[…@x.org …]" g.deep.to=<…@x.org> g.deep.reply="…, …"`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Whoever guesses at passwords may write anything in the place of a user.
func TestUserThatIsNoMailbox(t *testing.T) {
	for _, user := range []string{"bob", "bob smith@x.org", "bob@", "@bob", "a@b@c"} {
		if got := written(NoAddress, func(log *slog.Logger) { log.Warn("login refused", "user", user) }); got != `level=WARN msg="login refused" user=…` {
			t.Errorf("%q: %s", user, got)
		}
	}
}

// What is said of this server helps its admin, and names nobody.
func TestOwnNamesStay(t *testing.T) {
	for _, write := range []func(*slog.Logger){
		func(log *slog.Logger) { log.Info("listening", "service", "smtp", "address", "192.0.2.1:25") },
		func(log *slog.Logger) { log.Info("relayd is up", "hostname", "mx.example.com", "version", "v1.2.3") },
		func(log *slog.Logger) { log.Error("panic", "id", "4kZx9Qw2Ab", "stack", "go-smtp@v0.21.3/conn.go:12") },
		func(log *slog.Logger) {
			log.Error("file not in force", "file", "/etc/relayd/domains/example.com/aliases", "line", 3)
		},
	} {
		if got, want := written(None, write), written(Full, write); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// drawLocal makes local parts that stand nowhere else in a line by chance.
func drawLocal(t *rapid.T) string {
	return "zq" + rapid.OneOf(
		rapid.StringMatching(`[a-z0-9!#$%&'*+/=?^_{|}~-]{1,12}(\.[a-z0-9]{1,5})?`),
		rapid.StringMatching(`[a-z ,;:<>@"\\()]{1,10}`),
		rapid.StringMatching(`[ñéßж一a-z]{1,8}`),
	).Draw(t, "local")
}

func drawIP(t *rapid.T) netip.Addr {
	if rapid.Bool().Draw(t, "is4") {
		return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "ip4")))
	}
	bytes := rapid.SliceOfN(rapid.OneOf(rapid.Just(byte(0)), rapid.Byte()), 16, 16).Draw(t, "ip6")
	bytes[0] = 0x20
	return netip.AddrFrom16([16]byte(bytes))
}

// Wherever an address stands, in an attribute of a known name, in another one or in the message,
// nothing of what the level forbids comes out.
func TestNothingForbiddenIsWritten(t *testing.T) {
	var out bytes.Buffer
	loggers := map[Privacy]*slog.Logger{}
	for _, p := range []Privacy{NoIP, NoAddress, None} {
		loggers[p] = slog.New(New(slog.NewJSONHandler(&out, nil), p))
	}
	rapid.Check(t, func(t *rapid.T) {
		a := address.Address{Local: drawLocal(t), Domain: rapid.StringMatching(`wx[a-y0-9]{1,8}\.(example|org)`).Draw(t, "domain")}
		ip := drawIP(t)
		p := rapid.SampledFrom([]Privacy{NoIP, NoAddress, None}).Draw(t, "privacy")
		text := rapid.SampledFrom([]string{
			"550 5.1.1 <%s> unknown [%s]", "mail for %s from %s is held", "<%s>, (%s)", "%q says %q", "rfc822;%s via %s:25", "%s",
		})
		fill := func(name string) string {
			format := text.Draw(t, name)
			if strings.Count(format, "%") == 1 {
				return fmt.Sprintf(format, a)
			}
			return fmt.Sprintf(format, a.String(), ip.String())
		}
		keys := rapid.SliceOfN(rapid.SampledFrom([]string{"error", "cause", "reply", "reason", "panic", "host", "helo", "x", "id", "user", "from"}), 1, 4)
		attrs := []any{"client", ip.String()}
		for _, key := range keys.Draw(t, "keys") {
			attrs = append(attrs, key, fill(key))
		}
		if rapid.Bool().Draw(t, "known") {
			attrs = append(attrs, "to", "<"+a.String()+">", "reply", "User "+a.Local+" is unknown")
		}
		out.Reset()
		loggers[p].Info(fill("message"), attrs...)
		var fields map[string]any
		if err := json.Unmarshal(out.Bytes(), &fields); err != nil {
			t.Fatal(err)
		}
		delete(fields, slog.TimeKey)
		delete(fields, slog.LevelKey)
		line := fmt.Sprint(fields)
		if strings.Contains(line, ip.String()) {
			t.Fatalf("%s: %s is in %s", p, ip, line)
		}
		if p != NoIP && (strings.Contains(line, a.Local) || strings.Contains(line, "zq")) {
			t.Fatalf("%s: %q is in %s", p, a.Local, line)
		}
		if p == None && strings.Contains(line, a.Domain) {
			t.Fatalf("%s: %s is in %s", p, a.Domain, line)
		}
	})
}

// FuzzScrub scrubs any text: nothing that looks like what is forbidden is left.
func FuzzScrub(f *testing.F) {
	for _, seed := range []string{
		"550 <a.b@x.org> at [192.0.2.1]:25", `"\"a b\"@x.org`, "SRS0=H=T=x.org=a@y.org", "a@[IPv6:2001:db8::1]", "@", "a@@b", "…@x", "\xff@\xfe", "1:2:3:4:5:6:7:8",
		"1.2.3.4.5.6.7.8.9.a.b.c.d.e.f.0.ip6.arpa",
	} {
		f.Add(seed, "a.b")
	}
	levels := map[Privacy]*scrubber{NoIP: newScrubber(NoIP), NoAddress: newScrubber(NoAddress), None: newScrubber(None)}
	f.Fuzz(func(t *testing.T, text, word string) {
		for p, s := range levels {
			l := line{s, nil}
			if word != "" {
				l.named = []string{word}
			}
			l.value("user", text)
			l.text(text)
			got := l.scrub(text)
			if l.ip4.MatchString(got) || l.reversed.MatchString(got) || l.withoutIPs(got) != got {
				t.Fatalf("%s: %q leaves an IP address in %q", p, text, got)
			}
			if p == NoIP {
				continue
			}
			for i := range len(got) {
				if got[i] == '@' && i > 0 && !strings.HasSuffix(got[:i], mask) && !strings.ContainsRune(localEnds, rune(got[i-1])) {
					t.Fatalf("%s: %q leaves a local part in %q", p, text, got)
				}
			}
		}
	})
}

// BenchmarkLine is the price of a level for a line as each delivery writes one.
func BenchmarkLine(b *testing.B) {
	for _, p := range []Privacy{Full, NoIP, NoAddress, None} {
		b.Run(string(p), func(b *testing.B) {
			log := slog.New(New(slog.NewTextHandler(io.Discard, nil), p))
			for b.Loop() {
				log.Info("delivered", "id", "4kZx9Qw2Ab", "to", "<ann@a.example>", "host", "mx.b.example [2001:db8::1]:25", "reply", "250 2.0.0 OK  1734860000 d9443c01a7336-2164x - gsmtp", "attempts", 1)
			}
		})
	}
}
