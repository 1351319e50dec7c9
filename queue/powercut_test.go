package queue

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
)

// A ledger is what a client of the store was told.
type ledger struct {
	mu        sync.Mutex
	bodies    map[string][]byte // of every message that was ever offered
	accepted  map[string]bool   // Add returned nil
	maybeOver map[string]bool   // Remove, or the last delivery, was begun
	delivered map[string]int    // recipients recorded as delivered by an Update with sync
}

func newLedger() *ledger {
	return &ledger{bodies: map[string][]byte{}, accepted: map[string]bool{}, maybeOver: map[string]bool{}, delivered: map[string]int{}}
}

func quietOptions(m FS) StoreOptions {
	return StoreOptions{Dir: "q", FS: m, Group: func(r *Recipient) string { return r.Address.Domain },
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), segmentSize: 24 << 10}
}

// work is a mixed workload: small and large messages, changes, deliveries, removals, by a few
// writers at once, in segments so small that they are given up all the time. It stops at errors.
func (l *ledger) work(s *LogStore, seed uint64, messages int) {
	var wg sync.WaitGroup
	for writer := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(seed, uint64(writer)))
			var mine []string
			for range messages / 2 {
				if id, ok := l.add(s, rng); ok {
					mine = append(mine, id)
				}
				if len(mine) > 0 && rng.IntN(3) > 0 {
					i := rng.IntN(len(mine))
					if l.progress(s, mine[i], rng) {
						mine = append(mine[:i], mine[i+1:]...)
					}
				}
			}
		})
	}
	wg.Wait()
}

func (l *ledger) add(s *LogStore, rng *rand.Rand) (string, bool) {
	size := rng.IntN(3000)
	if rng.IntN(8) == 0 {
		size = 66<<10 + rng.IntN(5000)
	}
	e := testEnvelope("x@a.test", "y@b.test", "z@a.test")
	body := make([]byte, size)
	for i := range body {
		body[i] = byte(rng.Uint32())
	}
	l.mu.Lock()
	l.bodies[e.ID] = body
	l.mu.Unlock()
	if err := s.Add(e, bytes.NewReader(body)); err != nil {
		return "", false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted[e.ID] = true
	return e.ID, true
}

// progress delivers the next recipient, or removes the message; true when it is over.
func (l *ledger) progress(s *LogStore, id string, rng *rand.Rand) bool {
	e := s.Get(id)
	if e == nil {
		return true
	}
	next := 0
	for next < 3 && e.Recipients[next].State == Delivered {
		next++
	}
	if next >= 2 || rng.IntN(6) == 0 {
		l.mu.Lock()
		l.maybeOver[id] = true
		l.mu.Unlock()
		return s.Remove(id) == nil
	}
	r := e.Recipients[next]
	r.State = Delivered
	sync := rng.IntN(2) == 0
	if s.Update(id, map[int]Recipient{next: r}, sync) == nil && sync {
		l.mu.Lock()
		l.delivered[id] = max(l.delivered[id], next+1)
		l.mu.Unlock()
	}
	return false
}

// verify opens what a crash has left and holds it against the ledger.
func (l *ledger) verify(m *memFS) error {
	s, err := OpenStore(quietOptions(m))
	if err != nil {
		return fmt.Errorf("the store does not open: %w", err)
	}
	defer s.Close()
	seen := map[string]bool{}
	s.List(func(e *Envelope) bool {
		seen[e.ID] = true
		b, berr := s.Body(e.ID)
		if berr != nil {
			err = fmt.Errorf("%s: body: %w (accepted: %v)", e.ID, berr, l.accepted[e.ID])
			for _, seg := range s.segments {
				err = fmt.Errorf("%w [%d end %d bad %v]", err, seg.number, seg.end, seg.bad)
			}
			return false
		}
		defer b.Close()
		body, berr := io.ReadAll(b)
		if want, ok := l.bodies[e.ID]; berr != nil || !ok || !bytes.Equal(body, want) {
			err = fmt.Errorf("%s: a body of %d octets, want %d (%v)", e.ID, len(body), len(want), berr)
		}
		for i := range l.delivered[e.ID] {
			if e.Recipients[i].State != Delivered {
				err = fmt.Errorf("%s: recipient %d was recorded as delivered and is not", e.ID, i)
			}
		}
		return err == nil
	})
	for id := range l.accepted {
		if !seen[id] && !l.maybeOver[id] && err == nil {
			err = fmt.Errorf("%s was accepted and is lost", id)
		}
	}
	if err == nil {
		err = s.Add(testEnvelope("new@a.test"), bytes.NewReader([]byte("x")))
	}
	return err
}

// run lets the workload run on a file system that fails at one operation.
func run(seed uint64, failAt int, f fault) (*memFS, *ledger) {
	m := newMemFS()
	m.failAt, m.fault = failAt, f
	l := newLedger()
	s, err := OpenStore(quietOptions(m))
	if err != nil {
		return m, l
	}
	l.work(s, seed, 24)
	s.Close()
	return m, l
}

// seeds is how many workloads are tried, and every how many operations. The race detector is ten
// times as slow, and looks for something else here.
func seeds() (n uint64, every int) {
	if raceDetector {
		return 2, 16
	}
	return 20, 1
}

func TestPowerCutAtEveryOperation(t *testing.T) {
	n, every := seeds()
	for seed := range n {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m, _ := run(seed, -1, powerCut)
			for at := 1; at <= m.ops; at += every {
				m, l := run(seed, at, powerCut)
				for _, loss := range []loss{loseAll, loseTail, loseSectors, loseNothing} {
					if err := l.verify(m.crash(loss, rand.New(rand.NewPCG(seed, uint64(at))))); err != nil {
						t.Fatalf("power cut at operation %d, loss %d: %v", at, loss, err)
					}
				}
			}
			t.Logf("%d power cuts", 4*m.ops)
		})
	}
}

// After an error the store may refuse; what it has accepted must be there, at once and after a
// restart.
func TestErrorAtEveryOperation(t *testing.T) {
	n, every := seeds()
	for seed := range max(1, n/4) {
		for _, f := range []fault{ioError, noSpace, shortWrite} {
			t.Run(fmt.Sprintf("%d/%d", seed, f), func(t *testing.T) {
				t.Parallel()
				m, _ := run(seed, -1, f)
				for at := 1; at <= m.ops; at += every {
					m, l := run(seed, at, f)
					m.failAt = -1
					for _, loss := range []loss{loseNothing, loseAll} {
						if err := l.verify(m.crash(loss, rand.New(rand.NewPCG(seed, 0)))); err != nil {
							t.Fatalf("error at operation %d, loss %d: %v", at, loss, err)
						}
					}
				}
			})
		}
	}
}

func TestAfterAFailedSyncNothingIsTaken(t *testing.T) {
	m := newMemFS()
	s, err := OpenStore(quietOptions(m))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	add := func() error { return s.Add(testEnvelope("x@a.test"), bytes.NewReader([]byte("hello"))) }
	if err := add(); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.failAt, m.fault = m.ops+2, ioError // a write, then the sync
	m.mu.Unlock()
	if add() == nil {
		t.Fatal("accepted without a sync")
	}
	if add() == nil {
		t.Fatal("accepted after a sync that failed")
	}
}

func TestAFullDiskRefusesAndRecovers(t *testing.T) {
	m := newMemFS()
	opt := quietOptions(m)
	opt.ReserveBytes = 1000 // less than two segments
	s, err := OpenStore(opt)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	m.free = 999
	if err := s.Add(testEnvelope("x@a.test"), bytes.NewReader(nil)); !errors.Is(err, ErrFull) {
		t.Fatalf("got %v", err)
	}
	m.free = 1000
	if err := s.Add(testEnvelope("x@a.test"), bytes.NewReader(nil)); err != nil {
		t.Fatal(err)
	}
}
