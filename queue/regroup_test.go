package queue

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A directory is a fake of what is known of domains: who is asked for takes a second to be found.
type directory struct {
	mu      sync.Mutex
	mx      map[string]string // group by domain, "" where DNS fails
	known   map[string]string
	lookups int
}

func (d *directory) group(r *Recipient) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if g, ok := d.known[r.Address.Domain]; ok {
		return g
	}
	return "mx? " + r.Address.Domain
}

func (d *directory) learn(_ context.Context, r *Recipient) {
	if !strings.HasPrefix(d.group(r), "mx? ") {
		return
	}
	time.Sleep(time.Second)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lookups++
	if g := d.mx[r.Address.Domain]; g != "" {
		d.known[r.Address.Domain] = g
	}
}

// newDirectoryRig is a rig whose groups are learned.
func newDirectoryRig(t *testing.T, opt Options, mx map[string]string, deliver func(context.Context, *Work) []Outcome) (*rig, *directory) {
	t.Helper()
	d := &directory{mx: mx, known: map[string]string{}}
	r := newRig(t, nil)
	r.group, r.learn = d.group, d.learn
	r.restart(opt, deliver)
	return r, d
}

// TestDomainsOfOneServerAreOneGroup: 500 domains whose mail goes to one server are a thousand
// connections for it if each is a group.
func TestDomainsOfOneServerAreOneGroup(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		mx := map[string]string{}
		for n := range 500 {
			mx[fmt.Sprintf("d%d.test", n)] = "google.com"
		}
		var now, most, done atomic.Int64
		r, d := newDirectoryRig(t, Options{Workers: 1000, PerGroup: 20}, mx, func(_ context.Context, w *Work) []Outcome {
			if e := w.Envelope.Recipients[0]; w.Group != "google.com" || e.Attempts != 1 {
				t.Errorf("attempt %d in group %s", e.Attempts, w.Group)
			}
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
			done.Add(1)
			return all(w, taken)
		})
		r.run()
		for n := range 1000 {
			r.add(newEnvelope(t, fmt.Sprintf("MANY%04d", n), fmt.Sprintf("a@d%d.test", n%500)))
		}
		synctest.Wait()
		time.Sleep(2 * time.Second)
		if groups := r.Groups(); len(groups) != 1 || groups[0].Window > 5 {
			t.Errorf("after a second of deliveries: %+v", groups)
		}
		time.Sleep(time.Hour)
		if !r.empty() || most.Load() != 20 || done.Load() != 1000 || d.lookups > 1000 {
			t.Errorf("%d left after %d attempts and %d lookups, %d attempts at once", r.left(), done.Load(), d.lookups, most.Load())
		}
		r.stop()
	})
}

// TestRegroupingIsNoAttempt: what waits under a domain's own name moves without being tried.
func TestRegroupingIsNoAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		r, d := newDirectoryRig(t, Options{PerGroup: 2}, map[string]string{"one.test": "big.test", "two.test": "big.test"}, func(_ context.Context, w *Work) []Outcome {
			<-release
			return all(w, taken)
		})
		r.run()
		for n := range 100 {
			r.add(newEnvelope(t, fmt.Sprintf("MANY%04d", n), "a@one.test", "b@two.test"))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		tried := 0
		r.List(func(e *Envelope) bool {
			tried += e.Recipients[0].Attempts + e.Recipients[1].Attempts
			return true
		})
		groups := r.Groups()
		if tried > 4 || len(groups) != 1 || groups[0].Name != "big.test" || groups[0].Used != 2 || groups[0].WaitingSince.IsZero() {
			t.Errorf("%d recipients are tried, groups %+v", tried, groups)
		}
		close(release)
		synctest.Wait()
		if c := r.Counts(); !r.empty() || c != (Counts{Delivered: 200}) || d.lookups > 4 {
			t.Errorf("%d left, %+v, %d lookups", r.left(), c, d.lookups)
		}
		r.stop()
	})
}

// TestUnknownDomainIsAnOrdinaryAttempt: where DNS fails the message waits like any other, and is
// not looked up again and again.
func TestUnknownDomainIsAnOrdinaryAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var tries atomic.Int64
		r, d := newDirectoryRig(t, Options{}, nil, func(_ context.Context, w *Work) []Outcome {
			if n := tries.Add(1); (n <= 6) != (w.Group == "mx? one.test") {
				t.Errorf("in group %s", w.Group)
			}
			return all(w, later)
		})
		r.start(newEnvelope(t, idA, "a@one.test"))
		time.Sleep(3 * hour)
		synctest.Wait()
		if tries.Load() != 6 || d.lookups != 6 || r.claims.Load() > 300 { // 0, 5, 15, 35, 75 and 155 minutes
			t.Errorf("%d attempts, %d lookups and %d claims in 3 hours", tries.Load(), d.lookups, r.claims.Load())
		}
		d.mu.Lock()
		d.mx = map[string]string{"one.test": "big.test"}
		d.mu.Unlock()
		time.Sleep(4 * hour)
		synctest.Wait()
		if e := r.store.Get(idA); e.Recipients[0].Attempts != int(tries.Load()) {
			t.Errorf("%d attempts are counted, %d were made", e.Recipients[0].Attempts, tries.Load())
		}
		r.stop()
	})
}

// TestPanicWhileLearningIsContained: nor does the message come up again at once, for ever.
func TestPanicWhileLearningIsContained(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(_ context.Context, w *Work) []Outcome { return all(w, later) })
		r.learn = func(context.Context, *Recipient) { panic("at the resolver") }
		r.start(newEnvelope(t, idA, "a@one.test"))
		synctest.Wait()
		if e := r.store.Get(idA); e.Recipients[0].Attempts != 1 || r.claims.Load() > 5 || !strings.Contains(r.log.String(), "at the resolver") {
			t.Errorf("after %d claims: %s", r.claims.Load(), text(e))
		}
		r.stop()
	})
}

// TestEndWhileLearningIsNoAttempt: a restart must not cost a message one of its tries.
func TestEndWhileLearningIsNoAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(_ context.Context, w *Work) []Outcome { return all(w, later) })
		r.learn = func(ctx context.Context, _ *Recipient) { <-ctx.Done() }
		r.start(newEnvelope(t, idA, "a@one.test"))
		synctest.Wait()
		begun := time.Now()
		r.stop()
		if e := r.store.Get(idA); e.Recipients[0].Attempts != 0 || time.Since(begun) != 0 {
			t.Errorf("after %v: %s", time.Since(begun), text(e))
		}
	})
}
