package srs

import (
	"bufio"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"relayd/address"
)

const ours = "relay.example"

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func rewriter(t testing.TB, secrets ...string) *Rewriter {
	t.Helper()
	return withTokens(t, nil, secrets...)
}

func withTokens(t testing.TB, tokens TokenStore, secrets ...string) *Rewriter {
	t.Helper()
	opt := Options{Tokens: tokens}
	for _, s := range secrets {
		opt.Secrets = append(opt.Secrets, []byte(s))
	}
	r, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func parse(t testing.TB, s string) address.Address {
	t.Helper()
	a, err := address.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func forward(t testing.TB, r *Rewriter, sender string) address.Address {
	t.Helper()
	a, err := r.Forward(parse(t, sender), ours, noon)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestNew(t *testing.T) {
	for _, tt := range []struct {
		opt Options
		ok  bool
	}{
		{Options{}, false},
		{Options{Secrets: [][]byte{[]byte("a"), {}}}, false},
		{Options{Secrets: [][]byte{[]byte("a")}}, true},
		{Options{Secrets: [][]byte{[]byte("a")}, MaxAge: time.Hour}, false},
		{Options{Secrets: [][]byte{[]byte("a")}, MaxAge: -day}, false},
		{Options{Secrets: [][]byte{[]byte("a")}, MaxAge: 1001 * day}, false},
		{Options{Secrets: [][]byte{[]byte("a")}, MaxAge: 1000 * day}, true},
	} {
		if _, err := New(tt.opt); (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt.opt, err)
		}
	}
}

func TestIsSRS(t *testing.T) {
	for local, want := range map[string]bool{
		"SRS0=": true, "srs1+x": true, "Srs0-x": true,
		"": false, "SRS0": false, "SRS2=x": false, "SRS0x": false, "xSRS0=": false, "SRS=": false,
	} {
		if IsSRS(local) != want {
			t.Errorf("IsSRS(%q) is %v", local, !want)
		}
	}
}

// The vectors of postsrsd differ from ours in the alphabet of the hash only.
func TestAsPostsrsd(t *testing.T) {
	f, err := os.Open("testdata/postsrsd.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		field := strings.Split(lines.Text(), "\t")
		if len(field) != 5 {
			continue // a comment
		}
		seconds, err := strconv.ParseInt(field[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		now := time.Unix(seconds, 0)
		r := rewriter(t, field[1])
		question, err := address.FromPath(field[3], true)
		if err != nil {
			t.Fatal(err)
		}
		answer := field[4]
		switch field[0] {
		case "forward":
			got, err := r.Forward(question, ours, now)
			if err != nil || !sameButAlphabet(got.String(), answer) {
				t.Errorf("forward %s: %s, %v, want %s", question, got, err, answer)
			}
		case "reverse":
			got, err := r.Reverse(question, now)
			if want := refusal(answer); want != nil {
				if !errors.Is(err, want) {
					t.Errorf("reverse %s: %s, %v, want %v", question, got, err, want)
				}
			} else if err != nil || got != parse(t, answer) {
				t.Errorf("reverse %s: %s, %v, want %s", question, got, err, answer)
			}
		default:
			t.Errorf("unknown table %s", field[0])
		}
	}
}

// sameButAlphabet compares what we wrote with what postsrsd wrote, quotes apart.
func sameButAlphabet(got, postsrsd string) bool {
	got = strings.ReplaceAll(got, `"`, "")
	if len(got) < 13 || len(postsrsd) < 13 {
		return false
	}
	hash := strings.NewReplacer("+", "-", "/", "_").Replace(postsrsd[5:13])
	return got == postsrsd[:5]+hash+postsrsd[13:]
}

func refusal(answer string) error {
	switch {
	case strings.HasPrefix(answer, "500 Time"):
		return ErrExpired
	case strings.HasPrefix(answer, "500 Not"):
		return ErrNotSRS
	case strings.HasPrefix(answer, "500"):
		return ErrForged
	}
	return nil
}

func TestNullSenderStays(t *testing.T) {
	if a, err := rewriter(t, "s").Forward(address.Address{}, ours, noon); !a.IsNull() || err != nil {
		t.Errorf("%s, %v", a, err)
	}
}

func TestReverseRefuses(t *testing.T) {
	r := rewriter(t, "secret")
	good := forward(t, r, "alice@example.org")
	hash, rest := good.Local[5:13], good.Local[13:]
	other := "AAAAAAAA"
	for _, tt := range []struct {
		name, local string
		later       time.Duration
		want        error
	}{
		{"good", good.Local, 0, nil},
		{"22nd day", good.Local, 21*day + 11*time.Hour, nil},
		{"too old", good.Local, 22 * day, ErrExpired},
		{"much too old", good.Local, 500 * day, ErrExpired},
		{"a clock a day ahead", good.Local, -day, nil},
		{"from the future", good.Local, -2 * day, ErrExpired},
		{"not SRS", "alice", 0, ErrNotSRS},
		{"other hash", "SRS0=" + other + rest, 0, ErrForged},
		{"forged and too old", "SRS0=" + other + rest, 99 * day, ErrForged},
		{"short hash", "SRS0=" + hash[:7] + rest, 0, ErrForged},
		{"no hash", "SRS0=" + rest, 0, ErrForged},
		{"more of the hash than there is", "SRS0=" + hash + strings.Repeat("A", 30) + rest, 0, ErrForged},
		{"other sender", strings.Replace(good.Local, "alice", "bob", 1), 0, ErrForged},
		{"other domain", strings.Replace(good.Local, "example", "elsewhere", 1), 0, ErrForged},
		{"other day", strings.Replace(good.Local, "=JL=", "=JM=", 1), 0, ErrForged},
		{"SRS1 of it", "SRS1" + good.Local[4:], 0, ErrForged},
		{"cut off", "SRS0=" + hash, 0, ErrForged},
		{"nothing", "SRS0=", 0, ErrForged},
		{"nothing 1", "SRS1=", 0, ErrForged},
		{"other separators", strings.ReplaceAll(good.Local, "=", "+"), 0, ErrForged},
		{"first separator", "SRS0+" + good.Local[5:], 0, nil},
	} {
		_, err := r.Reverse(address.Address{Local: tt.local, Domain: ours}, noon.Add(tt.later))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// More characters of the hash than eight are taken when they are right.
func TestReverseTakesLongerHash(t *testing.T) {
	r := rewriter(t, "tops3cret-one")
	const whole = "4NO6-yxU3FwE6tCnBOW3IersDtI"
	for hash, want := range map[string]error{
		whole:                        nil,
		whole[:9]:                    nil,
		whole[:8]:                    nil,
		whole[:7]:                    ErrForged,
		whole[:8] + "4":              ErrForged,
		whole + "A":                  ErrForged,
		strings.ToUpper(whole):       nil,
		strings.ToLower(whole) + "=": ErrForged,
	} {
		a := address.Address{Local: "SRS0=" + hash + "=JL=example.org=alice", Domain: ours}
		if _, err := r.Reverse(a, noon); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", hash, err, want)
		}
	}
}

func TestSecretsRotate(t *testing.T) {
	before, after, gone := rewriter(t, "old"), rewriter(t, "new", "old"), rewriter(t, "new")
	a := forward(t, before, "alice@example.org")
	if _, err := after.Reverse(a, noon); err != nil {
		t.Errorf("the old secret no longer verifies: %v", err)
	}
	if _, err := gone.Reverse(a, noon); !errors.Is(err, ErrForged) {
		t.Errorf("a secret that is gone: %v", err)
	}
	if _, err := gone.Reverse(forward(t, after, "alice@example.org"), noon); err != nil {
		t.Errorf("the first secret does not sign: %v", err)
	}
}

// A bounce goes back through every forwarder, whichever program it runs, but the middle of three
// is skipped.
func TestChainOfForwarders(t *testing.T) {
	first, second, third := rewriter(t, "one"), rewriter(t, "two"), rewriter(t, "three")
	alice := parse(t, "Alice@example.org")
	at1, err1 := first.Forward(alice, "one.example", noon)
	at2, err2 := second.Forward(at1, "two.example", noon)
	at3, err3 := third.Forward(at2, "three.example", noon)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(at2.Local, "SRS1=") || !strings.HasPrefix(at3.Local, "SRS1=") || at3.Domain != "three.example" {
		t.Errorf("forwarded as %s and %s", at2, at3)
	}
	back, err := third.Reverse(at3, noon)
	if err != nil || back != at1 {
		t.Errorf("%s came back as %s, %v, want %s", at3, back, err, at1)
	}
	if back, err = first.Reverse(back, noon); err != nil || back != alice {
		t.Errorf("came back as %s, %v", back, err)
	}
}

// Mail that comes through us twice keeps the address it left with, as long as it is good.
func TestOwnAddressStays(t *testing.T) {
	r := rewriter(t, "secret")
	a := forward(t, r, "alice@example.org")
	if again, err := r.Forward(a, ours, noon); again != a || err != nil {
		t.Errorf("%s became %s, %v", a, again, err)
	}
	forged := parse(t, "SRS0=AAAAAAAA=JL=example.org=alice@"+ours)
	b, err := r.Forward(forged, ours, noon)
	if err != nil || !strings.HasPrefix(b.Local, "SRS1=") {
		t.Errorf("%s became %s, %v", forged, b, err)
	}
	if back, err := r.Reverse(b, noon); back != forged || err != nil {
		t.Errorf("and came back as %s, %v", back, err)
	}
}

// A sender that only looks rewritten is a sender like any other: its mail has to be forwarded.
func TestMalformedSRSSenders(t *testing.T) {
	r := rewriter(t, "secret")
	for _, s := range []string{"SRS1=foo@x.org", "SRS1-a-b=c@x.org", "srs1=a=no domain!=x@x.org", "SRS1=a=h.org=b@x.org", "SRS0x@x.org"} {
		sender, err := address.FromPath(s, true)
		if err != nil {
			t.Fatal(err)
		}
		a, err := r.Forward(sender, ours, noon)
		if err != nil || !strings.HasPrefix(a.Local, "SRS0=") {
			t.Errorf("%s became %s, %v", s, a, err)
			continue
		}
		if back, err := r.Reverse(a, noon); back != sender || err != nil {
			t.Errorf("%s came back as %s, %v", s, back, err)
		}
	}
}

// memory is a TokenStore for one test.
type memory map[string]string

func (m memory) Put(sender string, _ time.Time) (string, error) {
	token := "t" + strconv.Itoa(len(sender)) + "x" + strconv.Itoa(len(m))
	m[token] = sender
	return token, nil
}

func (m memory) Get(token string) (string, bool) { s, ok := m[token]; return s, ok }

type broken struct{ memory }

var errDisk = errors.New("no space left")

func (broken) Put(string, time.Time) (string, error) { return "", errDisk }

func TestLongSenders(t *testing.T) {
	long := strings.Repeat("Long", 16) + "@example.org"
	if _, err := rewriter(t, "s").Forward(parse(t, long), ours, noon); !errors.Is(err, ErrTooLong) {
		t.Errorf("without a store: %v", err)
	}
	if _, err := withTokens(t, broken{}, "s").Forward(parse(t, long), ours, noon); !errors.Is(err, errDisk) {
		t.Errorf("with a broken store: %v", err)
	}
	store := memory{}
	r := withTokens(t, store, "s")
	if _, err := r.Forward(parse(t, long), strings.Repeat("x.", 120)+"org", noon); !errors.Is(err, ErrTooLong) {
		t.Errorf("an SRS domain without room: %v", err)
	}
	a := forward(t, r, long)
	if len(a.Local) > address.MaxLocal {
		t.Errorf("%s is too long itself", a)
	}
	if back, err := r.Reverse(a, noon); back != parse(t, long) || err != nil {
		t.Errorf("came back as %s, %v", back, err)
	}
	folded := address.Address{Local: strings.ToUpper(a.Local), Domain: ours}
	if back, err := r.Reverse(folded, noon); back != parse(t, long) || err != nil {
		t.Errorf("in upper case it came back as %s, %v", back, err)
	}
	if _, err := r.Reverse(a, noon.Add(22*day)); !errors.Is(err, ErrExpired) {
		t.Errorf("too old: %v", err)
	}
	clear(store)
	if _, err := r.Reverse(a, noon); !errors.Is(err, ErrExpired) {
		t.Errorf("gone from the store: %v", err)
	}
	if _, err := rewriter(t, "s").Reverse(a, noon); !errors.Is(err, ErrExpired) {
		t.Errorf("no store any more: %v", err)
	}
}

// An SRS0 sender that leaves no room for another hop comes back as it was.
func TestLongForwardedSenders(t *testing.T) {
	r := withTokens(t, memory{}, "s")
	hop := "SRS0=AAAAAAAA=JL=" + strings.Repeat("long.", 7) + "org=alice"
	for sender, want := range map[string]string{
		hop + "@hop.example": hop + "@hop.example",
		"SRS1=BBBBBBBB=first.example==AAAA=JL=a.org=a-long-name@second.example": "SRS0=AAAA=JL=a.org=a-long-name@first.example",
	} {
		a := forward(t, r, sender)
		if back, err := r.Reverse(a, noon); back.String() != want || err != nil {
			t.Errorf("%s left as %s and came back as %s, %v, want %s", sender, a, back, err, want)
		}
	}
}
