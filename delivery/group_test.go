package delivery

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"relayd/dns"
)

// testTarget is the address that every name has in a pipeNet.
var testTarget = target{name: "mx.test", addr: netip.MustParseAddrPort("192.0.2.1:25")}

// A countingWorld counts lookups of MX.
type countingWorld struct {
	*world
	mu      sync.Mutex
	lookups int
}

func (w *countingWorld) MX(ctx context.Context, domain string) (dns.Answer[dns.MX], error) {
	w.mu.Lock()
	w.lookups++
	w.mu.Unlock()
	return w.world.MX(ctx, domain)
}

func TestGroups(t *testing.T) {
	w := newWorld()
	w.mx["gmail.com"] = []dns.MX{{Host: "alt1.gmail-smtp-in.l.google.com", Preference: 10}, {Host: "gmail-smtp-in.l.google.com", Preference: 5}}
	w.mx["custom.example"] = []dns.MX{{Host: "ASPMX.L.GOOGLE.COM", Preference: 1}}
	w.mx["office.example"] = []dns.MX{{Host: "office-example.mail.protection.outlook.com", Preference: 0}}
	w.mx["british.example"] = []dns.MX{{Host: "mx.provider.co.uk", Preference: 0}}
	w.mx["equal.example"] = []dns.MX{{Host: "b.two.example", Preference: 10}, {Host: "a.one.example", Preference: 10}}
	w.mx["null.example"] = []dns.MX{{}}
	w.mx["bare.example"] = []dns.MX{{Host: "uk"}}
	w.errs["gone.example"] = &dns.Error{Name: "gone.example", Type: "MX", Kind: dns.NotExist}
	w.errs["sick.example"] = &dns.Error{Name: "sick.example", Type: "MX", Kind: dns.Temporary}
	c := w.client(t, nil)
	for domain, want := range map[string]string{
		"gmail.com": "google.com", "custom.example": "google.com", "office.example": "outlook.com", "british.example": "provider.co.uk",
		"equal.example": "one.example", "null.example": "null.example", "bare.example": "uk", "host.example": "host.example",
		"gone.example": "mx? gone.example", "sick.example": "mx? sick.example", "[192.0.2.1]": "[192.0.2.1]",
	} {
		if got := c.Group(domain); !strings.HasPrefix(domain, "[") && got != "mx? "+domain {
			t.Errorf("%s is in group %q before anybody asked", domain, got)
		}
		c.Learn(t.Context(), domain)
		if got := c.Group(domain); got != want {
			t.Errorf("%s is in group %q, want %q", domain, got, want)
		}
	}
}

func TestFiveHundredDomainsAreOneGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &countingWorld{world: newWorld()}
		for n := range 500 {
			w.mx[fmt.Sprintf("d%d.example", n)] = []dns.MX{{Host: "aspmx.l.google.com", Preference: 1}}
		}
		c := w.client(t, func(o *Options) { o.Resolver = w })
		learn := func() {
			t.Helper()
			var all sync.WaitGroup
			for n := range 500 {
				all.Go(func() { c.Learn(t.Context(), fmt.Sprintf("d%d.example", n)) })
			}
			all.Wait()
			for n := range 500 {
				if g := c.Group(fmt.Sprintf("d%d.example", n)); g != "google.com" {
					t.Fatalf("domain %d is in group %s", n, g)
				}
			}
		}
		learn()
		time.Sleep(59 * time.Minute)
		if learn(); w.lookups != 500 {
			t.Errorf("%d lookups within the hour", w.lookups)
		}
		time.Sleep(2 * time.Minute)
		if learn(); w.lookups != 1000 {
			t.Errorf("%d lookups in the next hour", w.lookups)
		}
		// While DNS fails a domain stays where it was.
		time.Sleep(2 * time.Hour)
		w.errs["d1.example"] = &dns.Error{Name: "d1.example", Type: "MX", Kind: dns.Temporary}
		learn()
		c.opt.Now = func() time.Time { return time.Now().Add(-100 * time.Hour) }
		if learn(); w.lookups != 2000 {
			t.Errorf("%d lookups after the clock was set back", w.lookups)
		}
	})
}

// Whatever comes, a memory is bounded and holds what was used last.
func TestMemoryProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(2, 20).Draw(t, "size")
		m := newMemory[int, int](size)
		model := map[int]int{}
		var used []int // the latest last
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			key, v := rapid.IntRange(0, 30).Draw(t, "key"), rapid.IntRange(0, 3).Draw(t, "value")
			if got, ok := m.get(key); ok && got != model[key] {
				t.Fatalf("%d is %d, want %d", key, got, model[key])
			}
			m.change(key, func(old int, ok bool) (int, bool) { return v, v > 0 })
			model[key] = v
			used = append(used, key)
			if n := len(m.young) + len(m.old); n > size+1 {
				t.Fatalf("%d of %d are kept", n, size)
			}
			recent := map[int]bool{}
			for i := len(used) - 1; i >= 0 && len(recent) < size/2; i-- {
				recent[used[i]] = true
			}
			for key := range recent {
				_, young := m.young[key]
				_, old := m.old[key]
				if (young || old) != (model[key] > 0) {
					t.Fatalf("%d is kept: %v", key, young || old)
				}
			}
		}
	})
}

func FuzzGroupOf(f *testing.F) {
	for _, host := range []string{"mx.google.com", "", ".", "com", "..", "a..b", "-", "192.0.2.1", "\xff.com", "xn--p1ai", "a.b.kawasaki.jp"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		g := groupOf("own.example", []dns.MX{{Host: host, Preference: 1}})
		if g == "" || g != "own.example" && !strings.HasSuffix(strings.ToLower(host), g) {
			t.Errorf("%q is in group %q", host, g)
		}
	})
}
