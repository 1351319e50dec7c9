package mtasts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	mdns "github.com/miekg/dns"

	"relayd/dns"
	"relayd/internal/testnet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var servfail = &dns.Error{Name: "x", Type: "TXT", Kind: dns.Temporary, Cause: errors.New("SERVFAIL")}

func TestDomainsWithoutPolicy(t *testing.T) {
	w := newWorld(t)
	c := w.open()
	w.announce("two.test", "v=STSv1; id=1", "v=STSv1; id=2")
	w.announce("broken.test", "v=STSv1; id=")
	w.announce("[192.0.2.1]", "v=STSv1; id=1")
	for _, domain := range []string{
		"none.test", "two.test", "broken.test", "[192.0.2.1]", "", "a/../b", "..", strings.Repeat("a.", 126) + "a",
	} {
		w.want(c, domain, None, "", 0)
	}
}

func TestPolicyStaysInForce(t *testing.T) {
	w := newWorld(t)
	c := w.open()
	w.want(c, "example.com", Enforce, "", 1)
	w.want(c, "Example.COM.", Enforce, "", 1)

	w.announce("example.com") // the record is gone
	w.want(c, "example.com", Enforce, "", 1)
	w.breakDNS(servfail)
	w.want(c, "example.com", Enforce, "", 1)
	w.breakDNS(nil)
	w.announce("example.com", "v=STSv1; id=2")
	w.handle(http.NotFound)
	w.want(c, "example.com", Enforce, "", 2) // announced, but not to be had
	w.clock.Advance(604800*time.Second - 1)
	w.want(c, "example.com", Enforce, "", 3)
	w.clock.Advance(time.Second) // max_age is over
	w.want(c, "example.com", None, FetchError, 3)
	w.announce("example.com")
	w.want(c, "example.com", None, "", 3)
}

func TestNewID(t *testing.T) {
	w := newWorld(t)
	c := w.open()
	w.want(c, "example.com", Enforce, "", 1)
	w.publish(strings.Replace(enforced, "enforce", "testing", 1))
	w.want(c, "example.com", Enforce, "", 1) // the old id is still announced
	w.announce("example.com", "v=STSv1; id=2")
	w.want(c, "example.com", Testing, "", 2)
	w.publish("version: STSv1\nmode: none\nmax_age: 86400\n")
	w.announce("example.com", "v=STSv1; id=3")
	w.want(c, "example.com", None, "", 3)
	w.want(c, "example.com", None, "", 3)
}

func TestFailuresArePaced(t *testing.T) {
	w := newWorld(t)
	c := w.open()
	w.handle(http.NotFound)
	w.want(c, "example.com", None, FetchError, 1)
	w.want(c, "example.com", None, FetchError, 1)
	for i, pause := range []int{5, 10, 20, 40, 60, 60, 60} {
		w.clock.Advance(time.Duration(pause)*time.Minute - time.Second)
		w.want(c, "example.com", None, FetchError, 1+i)
		w.clock.Advance(time.Second)
		w.want(c, "example.com", None, FetchError, 2+i)
	}
	w.publish("nonsense")
	w.clock.Advance(time.Hour)
	w.want(c, "example.com", None, PolicyInvalid, 9)
	w.want(c, "example.com", None, PolicyInvalid, 9)
	w.publish(enforced)
	w.clock.Advance(time.Hour)
	w.want(c, "example.com", Enforce, "", 10)

	// The next failure begins with the short pause.
	w.handle(http.NotFound)
	w.announce("example.com", "v=STSv1; id=2")
	w.want(c, "example.com", Enforce, "", 11)
	w.clock.Advance(5 * time.Minute)
	w.want(c, "example.com", Enforce, "", 12)
}

func TestDNSFails(t *testing.T) {
	w := newWorld(t)
	c := w.open()
	w.breakDNS(servfail)
	w.want(c, "example.com", None, FetchError, 0)
	if _, err := c.Policy(t.Context(), "example.com"); !errors.Is(err, servfail) {
		t.Errorf("%v hides its cause", err)
	}
	w.breakDNS(nil)
	w.want(c, "example.com", Enforce, "", 1)
}

// A policy that is over as soon as it is there still counts for the mail that waits for it.
func TestNoAge(t *testing.T) {
	w := newWorld(t)
	c := w.open()
	w.publish(strings.Replace(enforced, "604800", "0", 1))
	w.want(c, "example.com", Enforce, "", 1)
	w.want(c, "example.com", Enforce, "", 1)
	w.clock.Advance(minHold)
	w.want(c, "example.com", Enforce, "", 2)
}

func TestOneFetchForAll(t *testing.T) {
	w := newWorld(t)
	c := w.open()
	release := make(chan struct{})
	w.handle(func(rw http.ResponseWriter, req *http.Request) {
		<-release
		plain(200, "text/plain", enforced)(rw, req)
	})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if p, err := c.Policy(t.Context(), "example.com"); err != nil || p.Mode != Enforce {
				t.Errorf("%v, %v", p, err)
			}
		})
	}
	close(release)
	wg.Wait()
	if n := w.count(); n != 1 {
		t.Errorf("%d fetches", n)
	}
}

// The first one to ask has little patience; those after it get what it asked for.
func TestImpatience(t *testing.T) {
	w := newWorld(t)
	c := w.open()
	began, release := make(chan struct{}), make(chan struct{})
	w.handle(func(rw http.ResponseWriter, req *http.Request) {
		close(began)
		<-release
		plain(200, "text/plain", enforced)(rw, req)
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-began
		cancel(errors.New("no patience"))
	}()
	_, err := c.Policy(ctx, "example.com")
	if e, ok := errors.AsType[*Error](err); !ok || e.Result != FetchError || !strings.Contains(err.Error(), "no patience") {
		t.Errorf("%v", err)
	}
	close(release)
	w.want(c, "example.com", Enforce, "", 1)
}

func TestFetchesAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFarWorld(t)
		var now, most atomic.Int32
		c := w.open(func(ctx context.Context, _, _ string) (net.Conn, error) {
			n := now.Add(1)
			defer now.Add(-1)
			if n > most.Load() {
				most.Store(n)
			}
			<-ctx.Done()
			return nil, ctx.Err()
		})
		var wg sync.WaitGroup
		start := time.Now()
		for i := range 3 * maxFetches {
			wg.Go(func() { w.want(c, fmt.Sprintf("d%d.test", i), None, FetchError, 0) })
		}
		wg.Wait()
		if most.Load() != maxFetches || time.Since(start) != 3*dialTime {
			t.Errorf("%d at a time, %v in all", most.Load(), time.Since(start))
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newFarWorld(t)
		c := w.open(func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 2 * maxFetches {
			wg.Go(func() { w.want(c, fmt.Sprintf("d%d.test", i), None, FetchError, 0) })
		}
		time.Sleep(time.Second)
		c.Close()
		wg.Wait()
		w.want(c, "after.test", None, FetchError, 0)
		if took := time.Since(start); took != time.Second {
			t.Errorf("took %v", took)
		}
		c.Close() // again
	})
}

// With more domains than there is room for, those go first that are worth nothing, then those that
// nobody has asked for the longest.
func TestEviction(t *testing.T) {
	var hosts []string
	for i := range 6 {
		hosts = append(hosts, fmt.Sprintf("mta-sts.d%d.test", i))
	}
	w := newWorld(t, hosts...)
	c := w.open(func(o *Options) { o.MaxEntries, o.Dir = 3, t.TempDir() })
	for i := range 6 {
		w.announce(fmt.Sprintf("d%d.test", i), "v=STSv1; id=1")
	}
	ask := func(i, fetches int) {
		t.Helper()
		w.clock.Advance(time.Second)
		w.want(c, fmt.Sprintf("d%d.test", i), Enforce, "", fetches)
	}
	ask(0, 1)
	ask(1, 2)
	ask(2, 3)
	ask(0, 3) // now d1 is the oldest
	ask(3, 4)
	ask(0, 4)
	ask(2, 4)
	ask(1, 5) // in the place of d3
	w.handle(http.NotFound)
	w.clock.Advance(time.Second)
	w.want(c, "d4.test", None, FetchError, 6) // in the place of d0
	w.clock.Advance(firstRetry)
	w.publish(enforced)
	ask(5, 7) // in the place of the failure
	ask(2, 7)
	ask(1, 7)
}

// That somebody gave up is not remembered as the domain's failure.
func TestGivingUp(t *testing.T) {
	w := newWorld(t)
	c := w.open()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Policy(ctx, "example.com"); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	w.want(c, "example.com", Enforce, "", 1)
}

// The whole way with the real resolver.
func TestWithResolver(t *testing.T) {
	w := newWorld(t)
	server := testnet.NewDNS(t, `
example.com. SOA ns hostmaster 1 3600 600 86400 60
_mta-sts.example.com. CNAME record.example.com.
record.example.com. TXT "v=STSv1; " "id=1;"
mta-sts.example.com. CNAME host.example.com.
host.example.com. A 127.0.0.1
none.example.com. A 127.0.0.1
`)
	server.Fail("_mta-sts.broken.example.com", mdns.RcodeServerFailure)
	c := w.open(func(o *Options) { o.Resolver = dns.New(dns.Options{Servers: []string{server.Addr()}}) })
	w.want(c, "example.com", Enforce, "", 1)
	w.want(c, "none.example.com", None, "", 1)
	w.want(c, "broken.example.com", None, FetchError, 1)
}
