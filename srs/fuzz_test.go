package srs

import (
	"bufio"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"relayd/address"
)

// seeds are the questions of the postsrsd vectors.
func seeds(f *testing.F) []string {
	file, err := os.Open("testdata/postsrsd.txt")
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	all := []string{"", "\"a b\"@x.org", "ñ@bücher.example", "SRS0=@x.org", "SRS0==@x.org", "SRS1===@x.org", "SRS0=AAAAAAAA=AA==t@relay.example"}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if field := strings.Split(lines.Text(), "\t"); len(field) == 5 {
			all = append(all, field[3])
		}
	}
	return all
}

// FuzzReverse asks for any address. What is restored must be a mailbox, and one that leads to
// the same address again.
func FuzzReverse(f *testing.F) {
	for _, s := range seeds(f) {
		local, domain, _ := strings.Cut(s, "@")
		f.Add(local, domain, int64(1795327470))
	}
	r := withTokens(f, memory{"t": "alice@example.org"}, "tops3cret-one", "another secret with blanks")
	f.Fuzz(func(t *testing.T, local, domain string, seconds int64) {
		now := time.Unix(seconds, 0)
		back, err := r.Reverse(address.Address{Local: local, Domain: domain}, now)
		switch {
		case errors.Is(err, ErrNotSRS) == IsSRS(local):
			t.Fatalf("%q: %v", local, err)
		case err != nil:
			return
		}
		if again, err := address.Parse(back.String()); again != back || err != nil {
			t.Fatalf("%q came back as %q, no mailbox: %v", local, back, err)
		}
	})
}

// FuzzForward rewrites any sender. The result must be a mailbox of ours and lead back.
func FuzzForward(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s, int64(1795327470))
	}
	r := withTokens(f, memory{}, "tops3cret-one")
	f.Fuzz(func(t *testing.T, path string, seconds int64) {
		sender, err := address.FromPath(path, true)
		if err != nil {
			return
		}
		now := time.Unix(seconds, 0)
		a, err := r.Forward(sender, ours, now)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := address.Parse(a.String()); again != a || err != nil || a.Domain != ours || !fits(a) && a != sender {
			t.Fatalf("%q left as %q, no mailbox of ours: %v", sender, a, err)
		}
		back, err := r.Reverse(a, now)
		if want, ok := expected(sender, back); err != nil || !ok && a != sender {
			t.Fatalf("%q left as %q and came back as %q, %v, want %q", sender, a, back, err, want)
		}
	})
}
