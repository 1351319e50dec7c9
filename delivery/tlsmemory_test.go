package delivery

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relayd/internal/sink"
	"relayd/internal/testnet"
)

// A fickle is a guarded world whose server can stop offering TLS.
type fickle struct {
	*guarded
	without atomic.Bool
	client  *Client
}

func newFickle(t *testing.T) *fickle {
	f := &fickle{}
	f.guarded = newGuarded(t, sink.Options{TLSConfig: serving(testnet.Cert(t, "mx.test")), Reply: func(stage, _ string, _ int) string {
		if stage == "ehlo" && f.without.Load() {
			return "250 mx.test"
		}
		return ""
	}})
	f.restart(t)
	return f
}

// restart ends the client and makes another from what was saved.
func (f *fickle) restart(t *testing.T) {
	if f.client != nil {
		f.client.Close()
	}
	f.client = f.guarded.client(t)
}

// after advances the clock, sends a message over a new connection, and compares what comes of it.
func (f *fickle) after(t *testing.T, wait time.Duration, want string) {
	t.Helper()
	f.advance(wait)
	for _, list := range f.client.pool.kept {
		for _, k := range list {
			f.client.pool.expire(k)
		}
	}
	if got, r := f.deliver(t, f.client, "example.org"); got != want {
		t.Errorf("%s; want %s: %v", got, want, r.Reply.Error())
	}
}

const day = 24 * time.Hour

func TestTLSThatIsGone(t *testing.T) {
	f := newFickle(t)
	for range 3 {
		f.after(t, 4*day, ByNothing)
	}
	f.without.Store(true)
	f.after(t, time.Hour, "deferred")
	f.after(t, tlsPatience-time.Minute, "deferred")
	f.restart(t)
	f.after(t, 0, "deferred")
	if w := f.client.Warnings(); len(w) > 0 {
		t.Errorf("warned too early: %q", w)
	}
	f.after(t, time.Minute, "clear")
	f.after(t, time.Hour, "clear")
	f.restart(t)
	f.after(t, time.Hour, "clear")
	if w := f.client.Warnings(); len(w) != 1 || !strings.HasPrefix(w[0], "mx.test used to have TLS; since 20") {
		t.Errorf("warnings: %q", w)
	}
	if n := strings.Count(f.log.String(), "none any more"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	f.after(t, 8*day, "clear")
	if w := f.client.Warnings(); len(w) > 0 {
		t.Errorf("after a week still: %q", w)
	}
}

func TestTLSThatComesBack(t *testing.T) {
	f := newFickle(t)
	f.after(t, 0, ByNothing)
	f.after(t, 8*day, ByNothing)
	f.without.Store(true)
	f.after(t, time.Hour, "deferred")
	f.without.Store(false)
	f.after(t, time.Hour, ByNothing)
	f.without.Store(true)
	f.after(t, 3*time.Hour, "deferred") // it counts anew
	f.after(t, tlsPatience, "clear")
	f.without.Store(false)
	f.after(t, time.Hour, ByNothing)
	if w := f.client.Warnings(); len(w) > 0 {
		t.Errorf("warnings: %q", w)
	}
	f.without.Store(true)
	f.after(t, 6*day, "clear") // the run was broken
}

func TestTLSNotForLong(t *testing.T) {
	f := newFickle(t)
	f.after(t, 0, ByNothing)
	f.after(t, 6*day, ByNothing)
	f.without.Store(true)
	f.after(t, 2*day, "clear")
	f.without.Store(false)
	f.after(t, 0, ByNothing)
	f.after(t, 8*day, ByNothing)
	f.without.Store(true)
	f.after(t, 0, "deferred")
}

// A handshake that fails is like no offer, and mail that must be encrypted does not come to that.
func TestHandshakesThatFailAllAtOnce(t *testing.T) {
	f := newFickle(t)
	f.after(t, 0, ByNothing)
	f.after(t, 8*day, ByNothing)
	conf := f.client.tls
	f.client.tls = conf.Clone()
	f.client.tls.MaxVersion = f.client.tls.MinVersion - 1
	f.after(t, 0, "deferred")
	f.demands["example.org"] = DemandEncrypt
	f.after(t, 5*time.Hour, "deferred")
	f.demands["example.org"] = DemandNone
	f.after(t, 0, "clear")
	delete(f.demands, "example.org")
	if w := f.client.Warnings(); len(w) > 0 {
		t.Errorf("the admin wanted it: %q", w)
	}
	f.after(t, 0, "clear")
	if w := f.client.Warnings(); len(w) != 1 {
		t.Errorf("warnings: %q", w)
	}
}

func TestClockSetBack(t *testing.T) {
	f := newFickle(t)
	f.after(t, 0, ByNothing)
	f.after(t, 8*day, ByNothing)
	f.without.Store(true)
	f.after(t, 0, "deferred")
	f.after(t, -30*day, "deferred")
	f.restart(t)
	f.after(t, tlsPatience, "clear")
}

func TestMemoryThatCannotBeKept(t *testing.T) {
	g := newGuarded(t, sink.Options{})
	g.saved = []byte("{")
	c := g.client(t)
	if !strings.Contains(g.log.String(), "forgotten") {
		t.Errorf("logged: %s", &g.log)
	}
	c.secure.secured("mx.test", g.now())
	g.disk = errors.New("no space left")
	c.Close()
	if !strings.Contains(g.log.String(), "no space left") {
		t.Errorf("logged: %s", &g.log)
	}
	g.disk = nil
	c.Close()
	if !strings.Contains(string(g.saved), "mx.test") {
		t.Errorf("saved: %s", g.saved)
	}
}

func TestMemoryIsSavedEachMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var saves atomic.Int32
		c := New(Options{TLS: TLSOptions{Save: func([]byte) error { saves.Add(1); return nil }}})
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { c.Run(ctx) })
		for range 100 {
			c.secure.secured("mx.test", time.Now())
			time.Sleep(time.Second)
		}
		time.Sleep(time.Hour)
		if saves.Load() != 2 {
			t.Errorf("saved %d times", saves.Load())
		}
		stop()
		running.Wait()
		c.Close()
		if saves.Load() != 2 {
			t.Errorf("saved %d times at the end", saves.Load())
		}
	})
}

// Many strange hosts do not make a proven one forgotten.
func TestMemoryIsBounded(t *testing.T) {
	m := &tlsMemory{hosts: map[string]tlsHost{}}
	now := time.Now()
	m.secured("good.test", now.Add(-30*day))
	m.secured("good.test", now.Add(-20*day))
	for i := range maxTLSHosts + maxTLSHosts/5 {
		m.secured(fmt.Sprintf("%d.test", i), now.Add(time.Duration(i)*time.Second))
		if len(m.hosts) > maxTLSHosts {
			t.Fatalf("%d hosts", len(m.hosts))
		}
	}
	if !m.hosts["good.test"].proven() {
		t.Error("forgotten")
	}
	if data := m.encode(); len(data) > 3<<20 || m.decode(data, now.Add(365*day)) != nil {
		t.Errorf("%d bytes cannot be read again", len(data))
	}
}

// FuzzMemory reads whatever may have been saved: what is taken has no times to come, and can be saved.
func FuzzMemory(f *testing.F) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	for _, seed := range []string{
		"", "{}", "null", `{"mx.test":{"since":"2026-05-01T00:00:00Z","last":"2026-06-01T00:00:00Z"}}`, `{"mx.test":{}}`,
		`{"a":{"since":"2027-05-01T00:00:00Z","last":"2027-06-01T00:00:00Z","lost":"2028-01-01T00:00:00Z","clear":"2029-01-01T00:00:00Z"}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &tlsMemory{hosts: map[string]tlsHost{}}
		if m.decode(data, now) != nil {
			return
		}
		for name, h := range m.hosts {
			if name == "" || h.Since.After(now) || h.Last.After(now) || h.Lost.After(now) || h.Clear.After(now) {
				t.Errorf("%q: %+v", name, h)
			}
			m.lost(name, now)
			m.cleared(name, now)
		}
		m.secured("mx.test", now)
		if err := new(tlsMemory).decode(m.encode(), now); err != nil {
			t.Error(err)
		}
	})
}
