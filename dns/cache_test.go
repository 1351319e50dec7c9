package dns

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"relayd/internal/testnet"
)

func TestHowLongAnswersAreKept(t *testing.T) {
	for _, c := range []struct {
		name string
		why  string
		kept time.Duration
	}{
		{"first.example.com", "the TTL", 300 * time.Second},
		{"brief.example.com", "the least time", minTime},
		{"long.example.com", "the longest time", maxTime},
		{"nothing.example.com", "the SOA's minimum", 60 * time.Second},
		{"null.example.com", "the SOA's minimum", 60 * time.Second},
		{"nothing.2.0.192.in-addr.arpa", "the longest time for a denial", maxDenied},
		{"elsewhere.org", "the time for failures", failedTime},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, server, clock := setup(t)
			server.Set(strings.ReplaceAll(zones, "2.0.192.in-addr.arpa. SOA", "2.0.192.in-addr.arpa. 86400 SOA"))
			ask := func(want int) {
				t.Helper()
				_, _ = r.IP(t.Context(), c.name, "ip4")
				if n := server.Count(c.name, "A"); n != want {
					t.Fatalf("asked %d times, want %d: %s is %s", n, want, c.why, c.kept)
				}
			}
			ask(1)
			clock.Advance(c.kept - time.Second)
			ask(1)
			clock.Advance(time.Second)
			ask(2)
		})
	}
}

func TestAFailureDoesNotOutliveItsTime(t *testing.T) {
	r, server, clock := setup(t)
	server.Fail("example.com", dns.RcodeServerFailure)
	if _, err := r.MX(t.Context(), "example.com"); kindOf(t, err) != Temporary {
		t.Fatal(err)
	}
	server.Fail("example.com", dns.RcodeSuccess)
	clock.Advance(failedTime)
	if _, err := r.MX(t.Context(), "example.com"); err != nil {
		t.Error(err)
	}
}

func TestCacheIsBoundedAndTrue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(2, 20).Draw(t, "size")
		c, clock := newCache(size), testnet.NewClock()
		last := map[question]string{}
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			q := question{fmt.Sprintf("n%d.", rapid.IntRange(0, 30).Draw(t, "name")), dns.TypeTXT}
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0:
				text := strings.Repeat("x", rapid.IntRange(0, 5000).Draw(t, "length"))
				c.put(q, result{records: []record{{text: text}}, ttl: time.Minute}, clock.Now())
				last[q] = text
			case 1:
				if res, ok := c.get(q, clock.Now()); ok && res.records[0].text != last[q] {
					t.Fatalf("%v is not what was put there last", q)
				}
			case 2:
				c.remove(q)
				if _, ok := c.get(q, clock.Now()); ok {
					t.Fatalf("%v is there after it was removed", q)
				}
			case 3:
				clock.Advance(10 * time.Second)
			}
			if total := sum(c.young) + sum(c.old); total > size || sum(c.young) != c.used {
				t.Fatalf("%d shares of %d, %d counted", total, size, c.used)
			}
		}
	})
}

func sum(generation map[question]entry) int {
	total := 0
	for q, e := range generation {
		total += shares(q, e.res)
	}
	return total
}

func TestWhatIsUsedStaysInTheCache(t *testing.T) {
	c, now := newCache(10), testnet.NewClock().Now()
	often := question{"often.", dns.TypeA}
	c.put(often, result{ttl: time.Hour}, now)
	for i := range 100 {
		c.put(question{fmt.Sprintf("n%d.", i), dns.TypeA}, result{ttl: time.Hour}, now)
		if _, ok := c.get(often, now); !ok {
			t.Fatalf("gone after %d others", i+1)
		}
	}
}
