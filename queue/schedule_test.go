package queue

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"relayd/reply"
)

const (
	hour = time.Hour
	day  = 24 * time.Hour
)

func TestIdleQueueDoesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(_ context.Context, w *Work) []Outcome { return all(w, onHold) })
		r.start(newEnvelope(t, idA, "a@one.test"))
		synctest.Wait()
		if err := r.Hold(idA); err != nil {
			t.Fatal(err)
		}
		time.Sleep(day)
		if n := r.claims.Load(); n > 5 {
			t.Errorf("%d claims in a day without work", n)
		}
		r.stop()
	})
}

func TestAttemptIsRecordedBeforeItIsMade(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var r *rig
		r = newRig(t, func(_ context.Context, w *Work) []Outcome {
			e := open(t, r.disk.crash(loseNothing, nil), "q").Get(idA)
			if e == nil || e.Recipients[0].Attempts != 1 || !e.Recipients[0].Next.After(time.Now().Add(4*time.Minute)) {
				t.Errorf("on the disk: %s", text(e))
			}
			return all(w, taken)
		})
		r.start(newEnvelope(t, idA, "a@one.test"))
		synctest.Wait()
		if !r.empty() {
			t.Error("not delivered")
		}
		r.stop()
	})
}

// A deliverer that misbehaves costs an attempt and nothing else.
func TestBadDelivererIsContained(t *testing.T) {
	for name, bad := range map[string]func(w *Work) []Outcome{
		"panic": func(*Work) []Outcome { panic("at the disco") }, "no outcomes": func(*Work) []Outcome { return nil },
		"one outcome of two": func(*Work) []Outcome { return []Outcome{later} },
		"no state":           func(w *Work) []Outcome { return all(w, Outcome{}) },
		"a strange state":    func(w *Work) []Outcome { return all(w, Outcome{State: "lost"}) },
		"too many outcomes":  func(w *Work) []Outcome { return append(all(w, later), taken, taken) },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var tries atomic.Int64
				r := newRig(t, func(_ context.Context, w *Work) []Outcome {
					if tries.Add(1) == 1 {
						return bad(w)
					}
					return all(w, taken)
				})
				r.start(newEnvelope(t, idA, "a@one.test", "b@one.test"))
				synctest.Wait()
				if e := r.store.Get(idA); e == nil || e.Recipients[0].State != Waiting || e.Recipients[1].State != Waiting || tries.Load() != 1 {
					t.Fatalf("after %d attempts: %s", tries.Load(), text(e))
				}
				time.Sleep(6 * time.Minute)
				synctest.Wait()
				if !r.empty() || tries.Load() != 2 {
					t.Errorf("after %d attempts: %s", tries.Load(), text(r.store.Get(idA)))
				}
				r.stop()
			})
		})
	}
}

func TestPanicInADSNIsContained(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		tries := 0
		r.restart(Options{Sign: func(string, io.Reader) (string, error) { panic("no key") }}, func(_ context.Context, w *Work) []Outcome {
			tries++
			return all(w, gone)
		})
		r.start(newEnvelope(t, idA, "a@one.test"))
		time.Sleep(hour)
		synctest.Wait()
		if e := r.store.Get(idA); e == nil || e.Recipients[0].State != Held || tries != 2 {
			t.Errorf("after %d attempts: %s", tries, text(e))
		}
		r.stop()
	})
}

// TestWhatMakesUsPanicTwiceIsHeld: only that, and until the admin releases it.
func TestWhatMakesUsPanicTwiceIsHeld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		tries := map[string]int{}
		mended := false
		r := newRig(t, func(_ context.Context, w *Work) []Outcome {
			mu.Lock()
			defer mu.Unlock()
			tries[w.Envelope.ID]++
			switch {
			case w.Envelope.ID == idA && !mended:
				panic("at the disco")
			case w.Envelope.ID == idB && tries[idB]%2 == 1: // now and then
				panic("at the bar")
			case w.Envelope.ID == idB && tries[idB] < 6:
				return all(w, Outcome{State: Waiting, Reply: later.Reply, Class: "busy"})
			}
			return all(w, taken)
		})
		r.start(newEnvelope(t, idA, "a@one.test"))
		r.add(newEnvelope(t, idB, "b@two.test"))
		time.Sleep(20 * 24 * hour)
		synctest.Wait()
		e := r.store.Get(idA)
		if e == nil || tries[idA] != 2 || e.Recipients[0].State != Held || !e.Recipients[0].Next.IsZero() || !e.Recipients[0].HeldAfterPanics() || !strings.Contains(e.Recipients[0].LastReply, "held: it has made relayd fail") {
			t.Fatalf("after %d attempts: %s", tries[idA], text(e))
		}
		if !strings.Contains(r.log.String(), "id="+idA+" panic=\"at the disco\" stack=") {
			t.Error("the log does not tell of it")
		}
		if r.store.Get(idB) != nil || tries[idB] != 6 {
			t.Errorf("the other: after %d attempts", tries[idB])
		}
		mended = true
		if err := r.Release(idA); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !r.empty() {
			t.Errorf("when it was released: %s", text(r.store.Get(idA)))
		}
		r.stop()
	})
}

// TestHungGroupDelaysNobody: nor does it stay hung once its attempts end.
func TestHungGroupDelaysNobody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		var sick, most, done atomic.Int64
		r := newRig(t, func(_ context.Context, w *Work) []Outcome {
			if w.Group == "sick.test" {
				most.Store(max(most.Load(), sick.Add(1)))
				<-release
				sick.Add(-1)
			}
			done.Add(1)
			return all(w, taken)
		})
		r.run()
		for n := range 50 {
			r.add(newEnvelope(t, fmt.Sprintf("SICK%04d", n), "a@sick.test"))
		}
		synctest.Wait()
		for n := range 50 {
			r.add(newEnvelope(t, fmt.Sprintf("WELL%04d", n), "a@well.test"))
		}
		synctest.Wait()
		if done.Load() != 50 || most.Load() != 2 {
			t.Errorf("%d of 50 were delivered while %d hung", done.Load(), most.Load())
		}
		before := r.claims.Load()
		close(release)
		synctest.Wait()
		if !r.empty() {
			t.Errorf("%d of 100 were delivered, then nothing moved", done.Load())
		}
		if n := r.claims.Load() - before; n > 60 {
			t.Errorf("%d claims for 50 messages", n)
		}
		r.stop()
	})
}

func TestRunEndsWithinGrace(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(ctx context.Context, w *Work) []Outcome {
			if w.Group == "quick.test" {
				time.Sleep(3 * time.Second)
				return all(w, taken)
			}
			<-ctx.Done()
			return all(w, Outcome{State: Waiting, Reply: reply.Internal(ctx.Err())})
		})
		r.run()
		r.add(newEnvelope(t, idA, "a@quick.test"))
		r.add(newEnvelope(t, idB, "a@slow.test"))
		synctest.Wait()
		begun := time.Now()
		r.stop()
		if took := time.Since(begun); took != 10*time.Second {
			t.Errorf("it took %v", took)
		}
		if e := r.store.Get(idB); r.store.Get(idA) != nil || e.Recipients[0].LastReply == "" {
			t.Errorf("the outcome of what was cut off: %s", text(e))
		}
	})
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(context.Context, *Work) []Outcome {
			time.Sleep(3 * time.Second)
			return []Outcome{taken}
		})
		r.start(newEnvelope(t, idC, "a@quick.test"))
		synctest.Wait()
		begun := time.Now()
		r.stop()
		if took := time.Since(begun); took != 3*time.Second {
			t.Errorf("with nothing slow under way it took %v", took)
		}
	})
}

// TestHangingDestinations: neither one with ten thousand messages nor two hundred of them delay what
// is for others.
func TestHangingDestinations(t *testing.T) {
	t.Parallel()
	for domains, messages := range map[int]int{1: 10_000, 200: 1000} {
		if raceDetector { // which takes ten times as long
			messages = max(messages/5, 3*domains) // so many that some have to wait
		}
		t.Run(fmt.Sprint(domains), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, nil)
				r.restart(Options{Workers: 1000, PerGroup: 20}, func(ctx context.Context, w *Work) []Outcome {
					if w.Group == "well.test" {
						return all(w, taken)
					}
					select {
					case <-time.After(5 * time.Minute):
						return all(w, Outcome{State: Waiting, Reply: later.Reply, Strained: true})
					case <-ctx.Done():
						return nil
					}
				})
				r.run()
				for n := range messages {
					r.add(newEnvelope(t, fmt.Sprintf("SICK%05d", n), fmt.Sprintf("a@d%d.test", n%domains)))
				}
				for range 11 {
					synctest.Wait()
					if n := r.Counts().Running; n > int64(2*domains) {
						t.Fatalf("%d attempts hang at %d destinations", n, domains)
					}
					before := r.left()
					for n := range 5 {
						r.add(newEnvelope(t, fmt.Sprintf("WELL%05d", n), "a@well.test"))
					}
					synctest.Wait()
					if r.left() != before {
						t.Fatal("a healthy destination has to wait")
					}
					time.Sleep(time.Minute)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				for _, g := range r.Groups() {
					if g.Name != "well.test" && (g.Window != 1 || g.Used < 1 || g.WaitingSince.IsZero()) {
						t.Errorf("in the end: %+v", g)
					}
				}
				r.stop()
			})
		})
	}
}

// TestRunEndsThoughADelivererDoesNot: it says what it leaves behind.
func TestRunEndsThoughADelivererDoesNot(t *testing.T) {
	bubble(t, func(t *testing.T) {
		release := make(chan struct{})
		r := newRig(t, func(_ context.Context, w *Work) []Outcome {
			<-release
			return all(w, taken)
		})
		r.start(newEnvelope(t, idA, "a@one.test"))
		synctest.Wait()
		begun := time.Now()
		r.stop()
		if took := time.Since(begun); took != 15*time.Second || !strings.Contains(r.log.String(), "id="+idA) {
			t.Errorf("after %v: %s", took, r.log)
		}
		close(release) // what comes of it later is recorded all the same
		synctest.Wait()
		if !r.empty() {
			t.Error("it was delivered, and will be again")
		}
	})
}

// TestAdminInsists: a retry that was asked for is known as such to the deliverer, once.
func TestAdminInsists(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var asked []bool
		r := newRig(t, nil)
		r.restart(Options{}, func(_ context.Context, w *Work) []Outcome {
			asked = append(asked, w.Envelope.Recipients[w.Indexes[0]].Asked)
			if len(asked) == 5 {
				if err := r.Retry(idA); err != nil { // while it is being tried
					t.Error(err)
				}
			}
			return all(w, later)
		})
		r.start(newEnvelope(t, idA, "a@one.test"))
		synctest.Wait()
		for _, f := range []func(string) error{r.Retry, r.Hold, r.Release} {
			if err := f(idA); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		time.Sleep(4 * hour)
		synctest.Wait()
		if got := fmt.Sprint(asked[:7]); got != "[false true true false false true false]" {
			t.Errorf("asked for: %s", got)
		}
		if e := r.store.Get(idA); len(e.Recipients[0].History) != 1 || e.Recipients[0].History[0].Count != len(asked) || e.Recipients[0].Asked {
			t.Errorf("after %d attempts: %s", len(asked), text(e))
		}
		if c := r.Counts(); c.Deferred != uint64(len(asked)) || c.Running != 0 {
			t.Errorf("%+v after %d attempts", c, len(asked))
		}
		r.stop()
	})
}

func TestRestartRepeatsNoDelivery(t *testing.T) {
	bubble(t, func(t *testing.T) {
		got := map[string]int{}
		var mu sync.Mutex
		deliver := func(_ context.Context, w *Work) (list []Outcome) {
			mu.Lock()
			defer mu.Unlock()
			for _, i := range w.Indexes {
				a := w.Envelope.Recipients[i].Address.String()
				if got[a]++; strings.HasPrefix(a, "late") && got[a] < 3 {
					list = append(list, later)
				} else {
					list = append(list, taken)
				}
			}
			return list
		}
		r := newRig(t, deliver)
		r.start(newEnvelope(t, idA, "a@one.test", "late@one.test", "b@two.test", "late@two.test"))
		for range 3 {
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			crashed := r.disk.crash(loseAll, rand.New(rand.NewPCG(1, 2)))
			r.stop()
			r.disk = crashed
			r.restart(Options{}, deliver)
			r.run()
		}
		r.until("all is delivered", r.empty)
		r.stop()
		for a, n := range got {
			if want := map[bool]int{true: 3, false: 1}[strings.HasPrefix(a, "late")]; n != want {
				t.Errorf("%s was sent %d times", a, n)
			}
		}
		if len(got) != 4 || len(r.dsns) != 0 {
			t.Errorf("delivered to %v, %d DSNs", got, len(r.dsns))
		}
	})
}

// TestFullDiskStillDelivers: delivery is what makes room.
func TestFullDiskStillDelivers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(_ context.Context, w *Work) []Outcome { return all(w, taken) })
		r.add(newEnvelope(t, idA, "a@one.test"))
		r.disk.before = func(op, _ string) error {
			if op == "write" || op == "create" {
				return syscall.ENOSPC
			}
			return nil
		}
		r.run()
		synctest.Wait()
		if !r.empty() {
			t.Error("nothing is delivered while the disk is full")
		}
		r.stop()
	})
}

// TestManyMessages: everything is delivered once, whatever comes and goes meanwhile.
func TestManyMessages(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		got := map[string]int{}
		r := newRig(t, func(_ context.Context, w *Work) (list []Outcome) {
			time.Sleep(time.Duration(len(w.Envelope.ID)+int(w.Envelope.ID[7])%7) * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			for _, i := range w.Indexes {
				got[w.Envelope.ID+w.Envelope.Recipients[i].Address.String()]++
				list = append(list, taken)
			}
			return list
		})
		r.run()
		want := 0
		for n := range 200 {
			var to []string
			for k := range 1 + n%4 {
				to = append(to, fmt.Sprintf("u%d@d%d.test", k/2, (n+k)%9))
			}
			want += len(to)
			r.add(newEnvelope(t, fmt.Sprintf("MANY%04d", n), to...))
		}
		time.Sleep(time.Minute)
		r.stop()
		if len(got) != want || !r.empty() {
			t.Errorf("%d of %d copies delivered, %d messages left", len(got), want, len(listed(r.store)))
		}
		for key, n := range got {
			if n != 1 {
				t.Errorf("%s was delivered %d times", key, n)
			}
		}
	})
}
