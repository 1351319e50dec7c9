package queue

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestAdminDuringAnAttempt: what the admin asks for while a message is being tried is not lost
// when the outcome is recorded.
func TestAdminDuringAnAttempt(t *testing.T) {
	do := func(verbs string) func(*rig) error {
		return func(r *rig) (err error) {
			for verb := range strings.FieldsSeq(verbs) {
				e := map[string]func(string) error{"hold": r.Hold, "release": r.Release, "retry": r.Retry, "remove": r.Remove}[verb](idA)
				if e != ErrHeld && e != ErrNotHeld {
					err = errors.Join(err, e)
				}
			}
			return err
		}
	}
	for _, test := range []struct {
		verbs   string
		outcome Outcome
		want    string // a state, "now" for waiting and due, "" for gone
	}{
		{"", later, "waiting"}, {"", onHold, "held"},
		{"hold", later, "held"}, {"hold", onHold, "held"}, {"hold", taken, ""}, {"hold", gone, ""},
		{"retry", later, "now"}, {"retry", onHold, "now"}, {"retry", taken, ""}, {"retry", gone, ""},
		{"hold release", later, "now"}, {"hold release", onHold, "now"}, {"hold release hold", later, "held"},
		{"release", later, "waiting"}, {"hold retry", later, "held"},
		{"remove", later, ""}, {"remove", gone, ""},
	} {
		t.Run(test.verbs+","+string(test.outcome.State), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				first := make(chan struct{})
				r := newRig(t, func(ctx context.Context, w *Work) []Outcome {
					select {
					case <-first:
						<-ctx.Done() // "now": a second attempt is under way at the end
					default:
						close(first)
						time.Sleep(time.Minute)
					}
					return all(w, test.outcome)
				})
				r.start(newEnvelope(t, idA, "a@one.test"))
				<-first
				if err := do(test.verbs)(r); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				got := ""
				if e := r.store.Get(idA); e != nil {
					s := e.Recipients[0].Status
					if got = string(s.State); s.State == Waiting && s.Attempts == 2 {
						got = "now"
					}
					if s.LastReply != test.outcome.Reply.String() {
						t.Errorf("the outcome was not recorded: %s", text(e))
					}
				}
				if got != test.want {
					t.Errorf("it is %q, want %q", got, test.want)
				}
				if want := map[bool]int{true: 1, false: 0}[test.outcome.State == Failed && test.verbs != "remove"]; r.count("failed") != want {
					t.Errorf("%d DSNs, want %d", r.count("failed"), want)
				}
				r.stop()
			})
		})
	}
}

func TestHeldAfterTheClaimIsNotTried(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(context.Context, *Work) []Outcome { panic("tried") })
		r.add(newEnvelope(t, idA, "a@one.test"))
		work, _ := r.store.Claim(time.Now(), 1, always)
		if err := r.Hold(idA); err != nil {
			t.Fatal(err)
		}
		r.attempt(t.Context(), work[0])
		r.store.Done(work[0])
		if e := r.store.Get(idA); e.Recipients[0].State != Held || e.Recipients[0].Attempts != 0 {
			t.Errorf("it is %s", text(e))
		}
		if again, _ := r.store.Claim(time.Now(), 1, always); len(again) != 0 {
			t.Error("held work is claimed")
		}
		if err := r.Release(idA); err != nil {
			t.Fatal(err)
		}
		if again, _ := r.store.Claim(time.Now(), 1, always); len(again) != 1 {
			t.Error("released work is not claimed")
		}
	})
}

func TestVerbs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		for name, f := range map[string]func(string) error{"hold": r.Hold, "release": r.Release, "retry": r.Retry, "remove": r.Remove} {
			if err := f(idA); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s of what is not there: %v", name, err)
			}
		}
		if _, err := r.Get(idA); !errors.Is(err, ErrNotFound) {
			t.Errorf("Get: %v", err)
		}
		e := newEnvelope(t, idA, "a@one.test", "b@one.test")
		e.Recipients[0].State = Delivered
		r.add(e)
		for _, f := range []func(string) error{r.Hold, r.Release, r.Retry} {
			if err := f(idA); err != nil {
				t.Fatal(err)
			}
			if s := r.store.Get(idA).Recipients[0].State; s != Delivered {
				t.Fatalf("a delivered recipient is %s", s)
			}
		}
	})
}

// expansion delivers to all but those in it, which it replaces.
func expansion(into map[string][]Recipient, o func(string) Outcome) func(context.Context, *Work) []Outcome {
	return func(_ context.Context, w *Work) (list []Outcome) {
		time.Sleep(time.Second)
		for _, i := range w.Indexes {
			a := w.Envelope.Recipients[i].Address.String()
			if to := into[a]; to != nil {
				list = append(list, Outcome{Into: to})
			} else {
				list = append(list, o(a))
			}
		}
		return list
	}
}

func TestExpansion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		to := func(s string) Recipient { return Recipient{Address: addr(t, s), Alias: addr(t, "alias@local.test")} }
		held := to("held@one.test")
		held.State = Held
		r := newRig(t, expansion(map[string][]Recipient{
			// Two groups that are expanded at the same time must not use the same places.
			"all@local.test":  {to("x@one.test"), to("y@two.test"), held},
			"all@second.test": {to("u@one.test"), to("v@two.test"), to("list@local.test")},
			"list@local.test": {to("z@three.test")},
		}, func(a string) Outcome {
			if strings.HasPrefix(a, "v@") || strings.HasPrefix(a, "z@") {
				return later
			}
			return taken
		}))
		e := newEnvelope(t, idA, "all@local.test", "all@second.test", "plain@local.test")
		e.Recipients[1].Alias = addr(t, "known@example.org")
		r.start(e)
		time.Sleep(4 * time.Minute)
		synctest.Wait()
		r.stop()
		for how, s := range map[string]*LogStore{"in memory": r.store, "on disk": open(t, r.disk, r.dir)} {
			var got []string
			for _, rcpt := range s.Get(idA).Recipients {
				got = append(got, rcpt.Address.String()+" "+rcpt.Alias.String()+" "+string(rcpt.State))
			}
			slices.Sort(got)
			want := []string{
				"held@one.test alias@local.test held", "plain@local.test  delivered", "u@one.test known@example.org delivered", "v@two.test known@example.org waiting",
				"x@one.test alias@local.test delivered", "y@two.test alias@local.test delivered", "z@three.test known@example.org waiting",
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s:\n%s\nwant:\n%s", how, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
	})
}

func TestExpansionWhileHeldIsHeld(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, expansion(map[string][]Recipient{"all@local.test": {{Address: addr(t, "x@one.test")}, {Address: addr(t, "y@one.test")}}}, func(string) Outcome { return taken }))
		r.start(newEnvelope(t, idA, "all@local.test"))
		synctest.Wait()
		if err := r.Hold(idA); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if e := r.store.Get(idA); e == nil || len(e.Recipients) != 2 || e.Recipients[0].State != Held || e.Recipients[1].State != Held {
			t.Errorf("it is %s", text(e))
		}
		r.stop()
	})
}

func TestExpansionInACircleEnds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, expansion(map[string][]Recipient{
			"a@local.test": {{Address: addr(t, "b@local.test"), Alias: addr(t, "a@local.test")}},
			"b@local.test": {{Address: addr(t, "a@local.test"), Alias: addr(t, "b@local.test")}},
		}, func(string) Outcome { return taken }))
		r.start(newEnvelope(t, idA, "a@local.test"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if !r.empty() || r.count("failed") != 1 || !strings.Contains(r.dsns[0], "554 5.4.6") {
			t.Errorf("%v, DSNs: %q", listed(r.store), r.dsns)
		}
		r.stop()
	})
}

// TestFailureThatCannotBeTold: a failure is not recorded before its DSN is in the queue.
func TestFailureThatCannotBeTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(_ context.Context, w *Work) (list []Outcome) {
			for _, i := range w.Indexes {
				list = append(list, map[bool]Outcome{true: gone, false: taken}[w.Envelope.Recipients[i].Address.Local != "good"])
			}
			return list
		})
		var full atomic.Bool
		full.Store(true)
		r.Queue.store = failingStore{r.Queue.store, &full}
		e := newEnvelope(t, idA, "good@one.test", "bad@one.test", "quiet@one.test")
		e.Recipients[2].Notify = []string{"NEVER"}
		add(t, r.store, e, "Subject: hi\r\n\r\nHello\r\n")
		r.run()
		synctest.Wait()
		got := r.store.Get(idA)
		if got == nil || got.Recipients[0].State != Delivered || got.Recipients[1].State != Waiting || got.Recipients[2].State != Failed {
			t.Fatalf("without room for a DSN: %s", text(got))
		}
		if got.Recipients[1].LastReply != gone.Reply.String() || !strings.Contains(r.log.String(), "a DSN could not be put into the queue") {
			t.Errorf("last reply %q, log:\n%s", got.Recipients[1].LastReply, r.log)
		}
		full.Store(false)
		time.Sleep(6 * time.Minute)
		synctest.Wait()
		if !r.empty() || r.count("failed") != 1 {
			t.Errorf("with room: %v, DSNs: %q", listed(r.store), r.dsns)
		}
		r.stop()
	})
}

// A failingStore has no room for DSNs.
type failingStore struct {
	Store
	full *atomic.Bool
}

func (s failingStore) Add(e *Envelope, body io.Reader, underWay ...*Work) error {
	if s.full.Load() && e.Sender.IsNull() {
		return errors.New("no room")
	}
	return s.Store.Add(e, body, underWay...)
}

func TestGivenUpThatCannotBeTold(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(_ context.Context, w *Work) []Outcome { return all(w, later) })
		var full atomic.Bool
		full.Store(true)
		r.Queue.store = failingStore{r.Queue.store, &full}
		add(t, r.store, newEnvelope(t, idA, "a@one.test"), "Subject: hi\r\n\r\nHello\r\n")
		r.run()
		time.Sleep(7 * day)
		synctest.Wait()
		got := r.store.Get(idA)
		if got == nil || got.Recipients[0].State != Waiting || got.Recipients[0].LastReply != later.Reply.String() || got.Recipients[0].Delayed {
			t.Fatalf("after 7 days: %s", text(got))
		}
		full.Store(false)
		time.Sleep(5 * time.Hour)
		synctest.Wait()
		if !r.empty() || r.count("failed") != 1 {
			t.Errorf("with room: %v, DSNs: %q", listed(r.store), r.dsns)
		}
		r.stop()
	})
}

// TestHeldIsTriedEveryFourHours: what needs somebody to mend something goes on by itself when that is
// done, and its sender is told when nobody does anything.
func TestHeldIsTriedEveryFourHours(t *testing.T) {
	for name, mended := range map[string]bool{"mended": true, "never mended": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var tries []time.Time
				r := newRig(t, func(_ context.Context, w *Work) []Outcome {
					tries = append(tries, time.Now())
					if mended && len(tries) > 3 {
						return all(w, taken)
					}
					return all(w, onHold)
				})
				r.start(newEnvelope(t, idA, "a@one.test"))
				time.Sleep(hour)
				synctest.Wait()
				if e := r.store.Get(idA); e.Recipients[0].State != Held || !e.Recipients[0].Next.Equal(tries[0].Add(4*hour)) {
					t.Fatalf("after an hour: %s", text(e))
				}
				r.until("it is over", r.empty)
				r.stop()
				for n := range tries[1:] {
					if gap := tries[n+1].Sub(tries[n]); gap != 4*hour {
						t.Errorf("gap %d is %v", n, gap)
					}
				}
				if want := map[bool]int{true: 4, false: 31}[mended]; len(tries) != want || r.count("failed") != map[bool]int{true: 0, false: 1}[mended] {
					t.Errorf("%d attempts, want %d; DSNs: %q", len(tries), want, r.dsns)
				}
			})
		})
	}
}
