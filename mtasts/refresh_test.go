package mtasts

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestRefresh(t *testing.T) {
	w := newWorld(t)
	c := w.open()
	w.want(c, "example.com", Enforce, "", 1)
	sweep := func(after time.Duration, fetches int) {
		t.Helper()
		w.clock.Advance(after)
		c.sweep(t.Context())
		if n := w.count(); n != fetches {
			t.Errorf("%d fetches; want %d", n, fetches)
		}
	}
	sweep(0, 1)
	sweep(refreshAfter-time.Second, 1)
	w.announce("example.com")
	w.breakDNS(servfail) // somebody suppresses the record
	sweep(time.Second, 2)
	sweep(time.Hour, 2)

	w.handle(http.NotFound)
	sweep(refreshAfter, 3)
	sweep(time.Minute, 3)
	sweep(firstRetry, 4)
	w.publish(enforced)
	sweep(lastRetry, 5)

	w.clock.Advance(6 * 24 * time.Hour)
	w.want(c, "example.com", Enforce, "", 5)
	sweep(0, 6)
	for i := range 6 {
		sweep(refreshAfter, 7+i)
	}
	sweep(refreshAfter, 12) // nobody has used it for a week
	w.want(c, "example.com", Enforce, "", 12)
	sweep(0, 13)

	// The id that a refresh found is the one that counts afterwards.
	w.breakDNS(nil)
	w.announce("example.com", "v=STSv1; id=2")
	sweep(refreshAfter, 14)
	w.want(c, "example.com", Enforce, "", 14)
}

// A policy of an hour must not lapse between two sweeps of a day.
func TestRefreshOfShortPolicy(t *testing.T) {
	w := newWorld(t)
	c := w.open()
	w.publish(strings.Replace(enforced, "604800", "7200", 1))
	w.want(c, "example.com", Enforce, "", 1)
	for i := range 5 {
		w.clock.Advance(time.Hour)
		c.sweep(t.Context())
		if n := w.count(); n != i+2 {
			t.Errorf("%d fetches after %d hours", n, i+1)
		}
	}
}

func TestForgetting(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	c := w.open(func(o *Options) { o.Dir = dir })
	w.want(c, "example.com", Enforce, "", 1)
	file := filepath.Join(dir, "example.com"+suffix)
	w.handle(http.NotFound)
	w.clock.Advance(604800*time.Second - 1)
	c.sweep(t.Context())
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
	w.clock.Advance(firstRetry) // over, and the failed refresh may be tried again
	c.sweep(t.Context())
	if _, err := os.Stat(file); !os.IsNotExist(err) || len(c.entries) != 0 {
		t.Errorf("%v, %d entries", err, len(c.entries))
	}
}

func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cache := newFarWorld(t).open(nil)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { cache.Run(ctx) })
		time.Sleep(10 * sweepEvery)
		cancel()
		wg.Wait()
	})
}
