package users

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func source(n byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, n}), 32)
}

// A race is logins in a lane whose only turn is taken.
type race struct {
	t    *testing.T
	lane *lane
	in   sync.WaitGroup

	mu    sync.Mutex
	order []byte // of sources that had their turn
	sent  []byte // of sources that were sent away
}

func newRace(t *testing.T, opt VerifierOptions) *race {
	opt.AtOnce = 1
	r := &race{t: t, lane: newLane(opt)}
	if err := r.lane.acquire(t.Context(), source(0)); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *race) join(n byte) {
	r.in.Go(func() {
		err := r.lane.acquire(r.t.Context(), source(n))
		r.mu.Lock()
		if err == nil {
			r.order = append(r.order, n)
		} else {
			r.sent = append(r.sent, n)
		}
		r.mu.Unlock()
		if err == nil {
			r.lane.release()
		}
	})
	synctest.Wait()
}

func (r *race) finish() {
	r.lane.release()
	r.in.Wait()
	if r.lane.free != 1 || r.lane.waiting != 0 || len(r.lane.turns) != 0 {
		r.t.Errorf("left: %d free, %d waiting, %d turns", r.lane.free, r.lane.waiting, len(r.lane.turns))
	}
}

func TestSourcesTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRace(t, VerifierOptions{MaxWaiting: 10, MaxOfSource: 4})
		for _, n := range []byte{1, 1, 1, 1, 1, 2, 2, 3} {
			r.join(n)
		}
		r.finish()
		if !slices.Equal(r.order, []byte{1, 2, 3, 1, 2, 1, 1}) || !slices.Equal(r.sent, []byte{1}) {
			t.Errorf("turns %v, sent away %v", r.order, r.sent)
		}
	})
}

func TestWhoHasTheMostMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRace(t, VerifierOptions{MaxWaiting: 4, MaxOfSource: 4})
		for _, n := range []byte{1, 1, 1, 1, 2, 3, 4} {
			r.join(n)
		}
		r.finish()
		if !slices.Equal(r.order, []byte{1, 2, 3, 4}) || !slices.Equal(r.sent, []byte{1, 1, 1}) {
			t.Errorf("turns %v, sent away %v", r.order, r.sent)
		}
	})
}

func TestWhoLeavesTheLaneHoldsNobodyUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRace(t, VerifierOptions{MaxWaiting: 4, MaxOfSource: 4})
		ctx, cancel := context.WithCancel(t.Context())
		r.in.Go(func() {
			if err := r.lane.acquire(ctx, source(1)); !errors.Is(err, ErrBusy) || !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		r.join(2)
		cancel()
		synctest.Wait()
		r.finish()
		if !slices.Equal(r.order, []byte{2}) {
			t.Errorf("turns %v", r.order)
		}
	})
}

func TestAFloodOfGuessesDoesNotHoldUpWhoIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, _, _ := counted(VerifierOptions{AtOnce: 1})
		flood := make(chan struct{})
		inner := v.compare
		v.compare = func(hash, password []byte) error {
			if string(password) == "guess" {
				<-flood
			}
			return inner(hash, password)
		}
		table := parse(t, "alice:"+hash4)
		var in sync.WaitGroup
		for n := range 200 {
			in.Go(func() {
				v.Verify(t.Context(), Login{Table: table, User: addr("alice"), Password: "guess", Source: source(byte(n))})
			})
		}
		synctest.Wait()
		if ok, err := v.Verify(t.Context(), Login{Table: table, User: addr("alice"), Password: "secret", Source: source(255), Known: true}); !ok || err != nil {
			t.Error("not in:", err)
		}
		close(flood)
		in.Wait()
	})
}

func TestWhatWasForbiddenMeanwhileIsNotCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v, count, _ := counted(VerifierOptions{})
		banned := errors.New("banned")
		_, err := v.Verify(t.Context(), Login{User: addr("alice"), Password: "x", Still: func() error { return banned }})
		if err != banned || count.Load() != 0 {
			t.Errorf("%v, %d comparisons", err, count.Load())
		}
		time.Sleep(time.Second) // the lane rests
		synctest.Wait()
		if v.unknown.free != v.opt.AtOnce {
			t.Error("the turn was kept")
		}
	})
}
