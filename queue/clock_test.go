package queue

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/internal/testnet"
)

func TestRetryTimes(t *testing.T) {
	t.Parallel()
	bubble(t, func(t *testing.T) {
		var tries []time.Time
		r := newRig(t, func(_ context.Context, w *Work) []Outcome {
			tries = append(tries, time.Now())
			return all(w, later)
		})
		e := newEnvelope(t, idA, "a@one.test", "b@one.test")
		e.User, e.Authentic = addr(t, "me@example.org"), false
		e.Recipients[0].Notify, e.Recipients[1].Notify = []string{"FAILURE"}, []string{"FAILURE"}
		r.start(e)
		r.until("the message is given up", r.empty)
		r.stop()
		want := []time.Duration{5, 10, 20, 40, 80, 160, 240, 240, 240, 240}
		for n, minutes := range want {
			nominal, gap := minutes*time.Minute, tries[n+1].Sub(tries[n])
			if gap < nominal*9/10 || gap > nominal*11/10 {
				t.Errorf("wait %d was %v, want %v ± 10 %%", n+1, gap, nominal)
			}
		}
		if end := tries[len(tries)-1].Sub(tries[0]); end < 120*hour || end > 120*hour+2*time.Second {
			t.Errorf("the last attempt was after %v", end)
		}
		if len(tries) < 33 || len(tries) > 41 {
			t.Errorf("%d attempts: the recipients did not stay together", len(tries))
		}
		if n := r.claims.Load(); n > 121*60+4*int64(len(tries)) {
			t.Errorf("%d claims for %d attempts in 5 days", n, len(tries))
		}
	})
}

func TestLifetimeEnds(t *testing.T) {
	t.Parallel()
	for _, life := range []time.Duration{time.Nanosecond, time.Millisecond, time.Second, time.Minute, 5 * time.Minute, hour, 5 * hour} {
		for _, takes := range []time.Duration{0, 3 * time.Second, 10 * time.Minute} {
			t.Run(fmt.Sprintf("%v,attempts take %v", life, takes), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					n := 0
					r := newRig(t, nil)
					r.restart(Options{Lifetime: life}, func(_ context.Context, w *Work) []Outcome {
						n++
						time.Sleep(takes)
						return all(w, later)
					})
					begun := time.Now()
					r.start(newEnvelope(t, idA, "a@one.test"))
					for !r.empty() {
						time.Sleep(time.Second)
						synctest.Wait()
					}
					if age := time.Since(begun); age < life || age > life+time.Duration(n)*(takes+2*time.Second) {
						t.Errorf("given up after %v and %d attempts", age, n)
					}
					synctest.Wait()
					if r.count("failed") != 1 || n < 2 || !strings.Contains(r.dsns[len(r.dsns)-1], "554 5.4.7 Given up after") {
						t.Errorf("after %d attempts: %q", n, r.dsns)
					}
					r.stop()
				})
			})
		}
	}
}

func TestDelayIsToldOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(_ context.Context, w *Work) []Outcome { return all(w, later) })
		r.start(newEnvelope(t, idA, "a@one.test", "b@two.test"))
		time.Sleep(4*hour - time.Minute)
		synctest.Wait()
		if r.count("delayed") != 0 {
			t.Error("a delay was told too soon")
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := r.count("delayed"); n != 2 { // one for each group
			t.Errorf("%d delay notices at 4 hours", n)
		}
		r.until("the message is given up", r.empty)
		synctest.Wait()
		if d, f := r.count("delayed"), r.count("failed"); d != 2 || f != 2 {
			t.Errorf("%d delay notices and %d failures", d, f)
		}
		r.stop()
	})
}

// TestClockJumps: neither does mail fail that was hardly tried, nor does it wait for a time that
// the clock will not show for long.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	for n, jump := range []time.Duration{2 * hour, 10 * hour, 6 * day, 3000 * day, -2 * hour, -10 * hour, -6 * day, -3000 * day} {
		if n%testnet.Stride(2) != 0 {
			continue
		}
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v,restart=%v", jump, restart), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					var tries []time.Time
					deliver := func(_ context.Context, w *Work) []Outcome {
						tries = append(tries, time.Now())
						return all(w, later)
					}
					r := newRig(t, deliver)
					begun := time.Now()
					r.start(newEnvelope(t, idA, "a@one.test"))
					time.Sleep(10 * time.Minute)
					if restart {
						r.stop()
					}
					r.jump.Store(int64(jump))
					if restart {
						r.restart(Options{}, deliver)
						r.run()
					}
					r.until("it is given up", r.empty)
					if age := time.Since(begun); age < 115*hour || age > 130*hour {
						t.Errorf("given up after %v", age)
					}
					for n := range tries[1:] {
						if gap := tries[n+1].Sub(tries[n]); gap > 9*hour {
							t.Errorf("attempt %d came %v after the one before it", n+2, gap)
						}
					}
					synctest.Wait()
					if d, f := r.count("delayed"), r.count("failed"); d != 1 || f != 1 {
						t.Errorf("%d delay notices and %d failures", d, f)
					}
					r.stop()
				})
			})
		}
	}
}

func TestClockJumpsDuringAnAttempt(t *testing.T) {
	for _, jump := range []time.Duration{6 * day, -6 * day} {
		bubble(t, func(t *testing.T) {
			var r *rig
			tries := 0
			r = newRig(t, func(_ context.Context, w *Work) []Outcome {
				if tries++; tries == 3 {
					r.jump.Store(int64(jump))
					time.Sleep(3 * time.Minute)
				}
				return all(w, later)
			})
			r.start(newEnvelope(t, idA, "a@one.test"))
			time.Sleep(3 * hour)
			synctest.Wait()
			if e := r.store.Get(idA); e == nil || tries < 5 || tries > 9 {
				t.Errorf("jump of %v: %d attempts in 3 hours, then %s", jump, tries, text(e))
			}
			r.stop()
		})
	}
}

func TestMessageFromTheFutureIsTriedAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(_ context.Context, w *Work) []Outcome { return all(w, taken) })
		e := newEnvelope(t, idA, "a@one.test")
		e.Received, e.Recipients[0].Status = e.Received.Add(30*day), Status{}
		r.start(e)
		synctest.Wait()
		if !r.empty() {
			t.Error("it waits")
		}
		r.stop()
	})
}

func TestBackoffNeverLeavesItsBounds(t *testing.T) {
	for attempts := range 200 {
		for _, chance := range []float64{0, 0.5, 0.999999} {
			d := jitter(spacing(attempts), chance)
			if d < firstRetry*9/10 || d > longest(lastRetry) {
				t.Errorf("after %d attempts %v", attempts, d)
			}
		}
	}
	want := []time.Duration{5, 10, 20, 40, 80, 160, 240, 240}
	got := []time.Duration{}
	for n := range want {
		got = append(got, spacing(n+1)/time.Minute)
	}
	if !slices.Equal(got, want) {
		t.Errorf("spacing: %v", got)
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{time.Second: "1 seconds", 90 * time.Second: "90 seconds", 5 * time.Minute: "5 minutes", 4 * hour: "4 hours", 120 * hour: "5 days"} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %s", d, got)
		}
	}
}
