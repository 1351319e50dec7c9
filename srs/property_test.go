package srs

import (
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relayd/address"
)

// drawSender makes any mailbox: quoted names, other scripts, literals, long ones.
func drawSender(t *rapid.T) address.Address {
	local := rapid.OneOf(
		rapid.StringMatching(`[a-zA-Z0-9.=+_-]{1,64}`),
		rapid.StringMatching(`[ -?A-~]{1,30}`),
		rapid.StringMatching(`[a-zñÑüÜжЖ名]{1,12}`),
		rapid.StringMatching(`(?i)srs[01][=+-][a-zA-Z0-9=+-]{0,40}`),
	).Draw(t, "local")
	domain := rapid.OneOf(
		rapid.StringMatching(`[a-z0-9]{1,20}(\.[a-z]{2,10}){1,8}`),
		rapid.SampledFrom([]string{"[192.0.2.1]", "[IPv6:2001:db8::1]", "bücher.example", ours}),
	).Draw(t, "domain")
	a, err := address.FromPath(local+"@"+domain, true)
	if err != nil {
		t.Skip("no mailbox")
	}
	return a
}

func drawTime(t *rapid.T) time.Time {
	return time.Unix(rapid.Int64Range(-1e9, 1e10).Draw(t, "time"), 0)
}

// asciiFold changes the case of ASCII letters, as mailers do.
func asciiFold(s string, upper bool) string {
	b := []byte(s)
	for i, c := range b {
		if upper && 'a' <= c && c <= 'z' || !upper && 'A' <= c && c <= 'Z' {
			b[i] ^= 0x20
		}
	}
	return string(b)
}

// Whoever sent, the bounce finds its way back for 21 days, in whatever case it comes, and under
// no other secret.
func TestRoundTrip(t *testing.T) {
	r, stranger := withTokens(t, memory{}, "secret"), withTokens(t, memory{}, "other")
	rapid.Check(t, func(t *rapid.T) {
		sender, now := drawSender(t), drawTime(t)
		a, err := r.Forward(sender, ours, now)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := address.Parse(a.String()); again != a || err != nil {
			t.Fatalf("%s is no mailbox: %v", a, err)
		}
		if !IsSRS(a.Local) || a.Domain != ours {
			t.Fatalf("%s is not ours", a)
		}
		later := now.Add(time.Duration(rapid.Int64Range(int64(-day), int64(21*day)).Draw(t, "age")))
		back, err := r.Reverse(a, later)
		if err != nil {
			t.Fatalf("%s came back: %v", a, err)
		}
		if want, ok := expected(sender, back); !ok {
			t.Fatalf("%s left as %s and came back as %s, want %s", sender, a, back, want)
		}
		folded := address.Address{Local: asciiFold(a.Local, rapid.Bool().Draw(t, "upper")), Domain: ours}
		if low, err := r.Reverse(folded, later); err != nil || !strings.EqualFold(low.String(), back.String()) {
			t.Fatalf("%s came back as %s, %v, want %s in any case", folded, low, err, back)
		}
		if _, err := stranger.Reverse(a, later); !errors.Is(err, ErrForged) {
			t.Fatalf("a stranger accepts %s: %v", a, err)
		}
	})
}

// expected says what a bounce to sender's rewritten address must go to.
func expected(sender, back address.Address) (address.Address, bool) {
	hop, inner, ok := rewrittenBy(sender)
	if !ok {
		return sender, back == sender
	}
	want := address.Address{Local: "SRS0" + inner, Domain: hop}
	return want, back == want
}

// Nothing that is changed by more than case is accepted.
func TestChangedAddressIsForged(t *testing.T) {
	r := rewriter(t, "secret")
	a := forward(t, r, "alice@example.org")
	rapid.Check(t, func(t *rapid.T) {
		b := []byte(a.Local)
		i := rapid.IntRange(5, len(b)-1).Draw(t, "at")
		b[i] = rapid.SampledFrom([]byte("abcdefghijklmnopqrstuvwxyz0123456789.-_=+/")).Draw(t, "byte")
		changed := string(b)
		back, err := r.Reverse(address.Address{Local: changed, Domain: ours}, noon)
		same := foldHash(changed) == foldHash(a.Local)
		if (err == nil) && !same {
			t.Fatalf("%s came back as %s", changed, back)
		}
	})
}
