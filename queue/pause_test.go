package queue

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relayd/reply"
)

// tooFast is a reply after which a group is left alone.
var tooFast = Outcome{State: Waiting, Reply: reply.New(421, "4.7.28", "Too fast"), Strained: true, Stop: 10 * time.Minute}

// A group that asked for less gets nothing for as long as it is meant to, then one attempt; and
// then one more at a time.
func TestStoppedGroupIsProbedByOne(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var tries []time.Duration
		running, most := 0, 0
		began := time.Now()
		r := newRig(t, nil)
		r.restart(Options{PerGroup: 8}, func(_ context.Context, w *Work) []Outcome {
			r.mu.Lock()
			tries = append(tries, time.Since(began))
			running++
			most = max(most, running)
			n := len(tries)
			r.mu.Unlock()
			time.Sleep(time.Second)
			r.mu.Lock()
			defer r.mu.Unlock()
			running--
			if n <= 3 {
				return all(w, tooFast)
			}
			return all(w, taken)
		})
		r.run()
		for n := range 30 {
			r.add(newEnvelope(t, fmt.Sprintf("STOPPED%02d", n), "a@one.test"))
		}
		seen := func() ([]time.Duration, int) {
			synctest.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			return slices.Clone(tries), most
		}
		time.Sleep(5 * time.Minute)
		if tries, most := seen(); len(tries) != 2 || most != 2 {
			t.Fatalf("attempts at %v", tries)
		}
		if g := r.Groups()[0]; !g.Paused.Equal(began.Add(10*time.Minute+time.Second)) || g.Window != 1 {
			t.Errorf("%+v", g)
		}
		time.Sleep(10 * time.Minute) // the one that probes is refused as well
		if tries, _ := seen(); len(tries) != 3 || tries[2] != 10*time.Minute+time.Second {
			t.Fatalf("attempts at %v", tries)
		}
		time.Sleep(5*time.Minute + 2*time.Second) // now the next is taken
		if tries, most := seen(); tries[3] != 20*time.Minute+2*time.Second || most > 2 {
			t.Errorf("attempts at %v, %d at once", tries, most)
		}
		r.until("all is sent", r.empty)
		r.stop()
	})
}

// What stops one group stops no other, and no message is offered to it before its answer.
func TestForwardQueuesForAStoppedGroup(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var tried atomic.Int64
		r := newRig(t, func(_ context.Context, w *Work) []Outcome { tried.Add(1); return all(w, taken) })
		r.Pause(map[string]time.Time{"one.test": time.Now().Add(10 * time.Minute)})
		r.run()
		o := offer(t, "a@one.test")
		if answer, err := r.Forward(t.Context(), o.Offer, 25*time.Second); err != nil || answer != (Answer{}) || tried.Load() != 0 {
			t.Errorf("%+v, %v, %d attempts", answer, err, tried.Load())
		}
		r.add(newEnvelope(t, idB, "a@two.test"))
		synctest.Wait()
		if tried.Load() != 1 || r.left() != 1 {
			t.Errorf("%d attempts, %d left", tried.Load(), r.left())
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if tried.Load() != 2 || !r.empty() {
			t.Errorf("%d attempts after the pause", tried.Load())
		}
		o.ended(t)
		r.stop()
	})
}

// Whoever starts relayd anew does not make it forget.
func TestRestartKeepsThePause(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var tried atomic.Int64
		deliver := func(_ context.Context, w *Work) []Outcome { tried.Add(1); return all(w, tooFast) }
		r := newRig(t, deliver)
		r.start(newEnvelope(t, idA, "a@one.test"))
		synctest.Wait()
		r.stop()
		paused := r.Paused()
		if want := map[string]time.Time{"one.test": time.Now().Add(10 * time.Minute).Round(0)}; !maps.EqualFunc(paused, want, time.Time.Equal) {
			t.Fatalf("%v", paused)
		}
		if err := r.store.Close(); err != nil {
			t.Fatal(err)
		}
		r.restart(Options{}, deliver)
		paused["far.test"] = time.Now().Add(1000 * time.Hour) // by a clock that was wrong
		paused["over.test"] = time.Now().Add(-time.Hour)
		r.Pause(paused)
		if err := r.Retry(idA); err != nil {
			t.Fatal(err)
		}
		r.run()
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		if tried.Load() != 1 || len(r.Paused()) != 1 {
			t.Errorf("%d attempts; %v", tried.Load(), r.Paused())
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if tried.Load() != 2 {
			t.Errorf("%d attempts", tried.Load())
		}
		r.stop()
	})
}

// A clock that is set back does not make a pause longer than it can have been meant to be.
func TestPauseAndTheClock(t *testing.T) {
	s, now := newSlots(10, 5)
	s.one(t, "g", Outcome{State: Waiting, Strained: true, Stop: time.Hour})
	if s.take("g") {
		t.Error("no pause")
	}
	if next := s.wakeUp(time.Time{}); !next.Equal(start.Add(time.Hour)) {
		t.Errorf("wakes up at %v", next)
	}
	if next := s.wakeUp(start.Add(time.Minute)); !next.Equal(start.Add(time.Minute)) {
		t.Errorf("wakes up at %v", next)
	}
	*now = now.Add(-48 * time.Hour)
	if !s.take("g") || s.take("g") {
		t.Error("paused by a clock that was wrong, or more than one attempt")
	}
	if next := s.wakeUp(time.Time{}); !next.IsZero() {
		t.Errorf("wakes up at %v", next)
	}
}

// A pause outlives the time for which a group is remembered.
func TestPausedGroupIsRemembered(t *testing.T) {
	s, now := newSlots(10, 5)
	s.one(t, "g", Outcome{State: Waiting, Strained: true, Stop: 3 * time.Hour})
	*now = now.Add(2 * time.Hour)
	s.one(t, "other", taken)
	if s.take("g") {
		t.Error("the pause is forgotten")
	}
}

// TestWaitingForALimitIsNoAttempt: it is not counted, not in the history, and the time of it is
// not that of attempts.
func TestWaitingForALimitIsNoAttempt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		paced := Outcome{State: Waiting, Until: time.Now()}
		outcomes := []Outcome{paced, paced, later, paced, onHold, paced, taken}
		var tried atomic.Int64
		left := func() int { return len(outcomes) - int(tried.Load()) }
		r := newRig(t, func(_ context.Context, w *Work) []Outcome {
			o := outcomes[tried.Add(1)-1]
			if !o.Until.IsZero() {
				o.Until = time.Now().Add(90 * time.Second)
			}
			return all(w, o)
		})
		r.start(newEnvelope(t, idA, "a@one.test"))
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		e := r.store.Get(idA)
		if rcpt := e.Recipients[0]; left() != 5 || rcpt.Attempts != 0 || rcpt.Tried != 0 || !rcpt.LastTry.IsZero() || len(rcpt.History) != 0 || rcpt.State != Waiting || rcpt.Trying {
			t.Errorf("%d left: %s", left(), text(e))
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		e = r.store.Get(idA)
		was := e.Recipients[0]
		if was.Attempts != 1 || len(was.History) != 1 || left() != 4 {
			t.Errorf("%d left: %s", left(), text(e))
		}
		time.Sleep(time.Until(was.Next) + time.Second)
		synctest.Wait()
		now := r.store.Get(idA).Recipients[0]
		if now.Attempts != 1 || now.Tried != was.Tried || !now.LastTry.Equal(was.LastTry) || left() != 3 {
			t.Errorf("%d left: %+v", left(), now)
		}
		time.Sleep(4*time.Hour + 2*time.Minute)
		synctest.Wait()
		if held := r.store.Get(idA).Recipients[0]; held.State != Held || held.Attempts != 2 || left() != 1 {
			t.Errorf("%d left: %+v", left(), held)
		}
		r.until("it is delivered", r.empty)
		if c := r.Counts(); c.Deferred != 2 || c.Delivered != 1 {
			t.Errorf("%+v", c)
		}
		r.stop()
	})
}

// Who has a limit to wait for is in the queue before the sender's patience ends, and what the admin
// asks for meanwhile stands.
func TestForwardQueuesWhoHasToWaitForALimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		until := time.Now().Add(time.Minute)
		var tried atomic.Int64
		r := newRig(t, func(_ context.Context, w *Work) []Outcome {
			if tried.Add(1) == 1 {
				return all(w, Outcome{State: Waiting, Until: until})
			}
			return all(w, taken)
		})
		r.run()
		o, began := offer(t, "a@one.test"), time.Now()
		if answer, err := r.Forward(t.Context(), o.Offer, 25*time.Second); err != nil || answer != (Answer{}) || time.Since(began) != 0 {
			t.Errorf("%+v, %v after %v", answer, err, time.Since(began))
		}
		synctest.Wait()
		if e := r.store.Get(idA); e.Recipients[0].Attempts != 0 || !e.Recipients[0].Next.Equal(until) {
			t.Error(text(e))
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if tried.Load() != 2 || !r.empty() {
			t.Errorf("%d attempts", tried.Load())
		}
		o.ended(t)
		r.stop()
	})
}

func TestHoldWhileWaitingForALimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var r *rig
		r = newRig(t, func(_ context.Context, w *Work) []Outcome {
			if err := r.Hold(w.Envelope.ID); err != nil {
				t.Error(err)
			}
			return all(w, Outcome{Until: time.Now().Add(time.Minute)})
		})
		r.start(newEnvelope(t, idA, "a@one.test"))
		synctest.Wait()
		if e := r.store.Get(idA); e.Recipients[0].State != Held || !e.Recipients[0].Next.IsZero() || e.Recipients[0].Attempts != 0 {
			t.Error(text(e))
		}
		r.stop()
	})
}

// A few times the same means no; another reply in between begins the count anew, and that nobody
// was reached says nothing.
func TestFewAttempts(t *testing.T) {
	suspicious := Outcome{State: Waiting, Reply: reply.New(421, "4.7.0", "Suspicious"), Class: "reputation", Attempts: 3}
	other := Outcome{State: Waiting, Reply: reply.New(451, "4.3.0", "Hm"), Class: "passing"}
	for name, c := range map[string]struct {
		outcomes []Outcome
		fails    bool
	}{
		"the same":         {[]Outcome{suspicious, suspicious, suspicious}, true},
		"nothing said":     {[]Outcome{suspicious, later, suspicious, later, suspicious}, true},
		"another":          {[]Outcome{suspicious, suspicious, other, suspicious, suspicious, taken}, false},
		"without a number": {[]Outcome{other, other, other, other, taken}, false},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				n := 0
				r := newRig(t, func(_ context.Context, w *Work) []Outcome {
					n++
					return all(w, c.outcomes[n-1])
				})
				e := newEnvelope(t, idA, "a@one.test")
				r.start(e)
				r.until("it is over", r.empty)
				r.stop()
				if n != len(c.outcomes) || r.count("failed") != map[bool]int{true: 1}[c.fails] {
					t.Errorf("%d attempts; DSNs %q", n, r.dsns)
				}
				if c.fails && !strings.Contains(r.dsns[0], "421 4.7.0 Suspicious") {
					t.Errorf("%s", r.dsns[0])
				}
			})
		})
	}
}

// A server that never takes anything is not waited for for ever, however many messages wait their turn.
func TestLifetimeEndsWhileAGroupIsPaused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const messages = 200
		r := newRig(t, func(_ context.Context, w *Work) []Outcome { return all(w, tooFast) })
		r.run()
		begun := time.Now()
		for n := range messages {
			r.add(newEnvelope(t, fmt.Sprintf("PAUSED%06d", n), "a@one.test"))
		}
		r.until("all are given up", r.empty)
		// Each is tried after five days at the latest, and then has its last turn.
		if age := time.Since(begun); age < 120*time.Hour || age > 120*time.Hour+2*messages*11*time.Minute {
			t.Errorf("given up after %v", age)
		}
		r.stop()
	})
}

// What the admin holds for weeks is not given up for it.
func TestTimeOnHoldDoesNotCount(t *testing.T) {
	bubble(t, func(t *testing.T) {
		tries := 0
		r := newRig(t, func(_ context.Context, w *Work) []Outcome {
			tries++
			return all(w, later)
		})
		r.start(newEnvelope(t, idA, "a@one.test"))
		time.Sleep(time.Hour)
		if err := r.Hold(idA); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * day)
		before := tries
		if err := r.Release(idA); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * day)
		synctest.Wait()
		if r.empty() || tries < before+20 {
			t.Errorf("given up, or left alone, after %d more attempts", tries-before)
		}
		r.stop()
	})
}
