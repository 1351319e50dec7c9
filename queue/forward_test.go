package queue

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relayd/reply"
)

// An offered message counts how often it was opened and given up.
type offered struct {
	Offer
	open, done atomic.Int64
	late       atomic.Int64 // opened after it was given up
}

func offer(t *testing.T, to ...string) *offered {
	t.Helper()
	o := &offered{}
	e := newEnvelope(t, idA, to...)
	for i := range e.Recipients {
		e.Recipients[i].State, e.Recipients[i].Next = "", time.Time{}
		e.Recipients[i].Alias = addr(t, "alias@here.test")
	}
	o.Offer = Offer{
		Envelope: e,
		Open: func() (io.ReadCloser, error) {
			o.open.Add(1)
			o.late.Add(o.done.Load())
			return io.NopCloser(strings.NewReader("Subject: hi\r\n\r\nHello\r\n")), nil
		},
		Done: func() { o.done.Add(1) },
	}
	return o
}

// ended fails unless the message was given up once, and not touched after that.
func (o *offered) ended(t *testing.T) {
	t.Helper()
	synctest.Wait()
	if o.done.Load() != 1 || o.late.Load() != 0 {
		t.Errorf("given up %d times, opened %d times after that", o.done.Load(), o.late.Load())
	}
}

// after makes a deliverer that takes its time and answers by the recipient's local part.
func after(d time.Duration, byLocal map[string]Outcome) func(context.Context, *Work) []Outcome {
	return func(ctx context.Context, w *Work) (list []Outcome) {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return nil
		}
		for _, i := range w.Indexes {
			list = append(list, byLocal[w.Envelope.Recipients[i].Address.Local])
		}
		return list
	}
}

var byName = map[string]Outcome{"good": taken, "bad": gone, "busy": later}

func TestForward(t *testing.T) {
	for name, c := range map[string]struct {
		to      []string
		takes   time.Duration
		want    string // "forwarded", "refused", "queued"
		waits   time.Duration
		left    string // states in the queue right after the answer, by recipient
		atLast  time.Duration
		sending int // attempts in all, in the end
	}{
		"taken":               {[]string{"good@one.test"}, time.Second, "forwarded", time.Second, "", 0, 1},
		"taken by two":        {[]string{"good@one.test", "good@two.test"}, time.Second, "forwarded", time.Second, "", 0, 2},
		"refused":             {[]string{"bad@one.test", "bad@one.test"}, time.Second, "refused", time.Second, "", 0, 1},
		"later":               {[]string{"busy@one.test"}, time.Second, "queued", time.Second, "waiting", 0, 0},
		"one takes, one not":  {[]string{"good@one.test", "bad@two.test"}, time.Second, "queued", time.Second, "", 0, 2},
		"one takes, one will": {[]string{"good@one.test", "busy@two.test"}, time.Second, "queued", time.Second, "delivered waiting", 0, 0},
		"too slow":            {[]string{"good@one.test"}, time.Minute, "queued", 25 * time.Second, "waiting", time.Minute, 1},
		"too slow, refused":   {[]string{"bad@one.test"}, time.Minute, "queued", 25 * time.Second, "waiting", time.Minute, 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				var tries atomic.Int64
				r := newRig(t, func(ctx context.Context, w *Work) []Outcome {
					tries.Add(1)
					return after(c.takes, byName)(ctx, w)
				})
				r.run()
				o, began := offer(t, c.to...), time.Now()
				answer, err := r.Forward(t.Context(), o.Offer, 25*time.Second)
				got := map[bool]string{true: "forwarded"}[answer.Forwarded]
				switch {
				case err != nil:
					t.Fatal(err)
				case answer.Refused != nil:
					got = "refused"
				case !answer.Forwarded:
					got = "queued"
				}
				if got != c.want || time.Since(began) != c.waits {
					t.Errorf("%s after %v", got, time.Since(began))
				}
				var states []string
				if e := r.store.Get(idA); e != nil {
					for _, rcpt := range e.Recipients {
						states = append(states, string(rcpt.State))
					}
				}
				if strings.Join(states, " ") != c.left {
					t.Errorf("left in the queue: %q", states)
				}
				time.Sleep(c.atLast)
				synctest.Wait()
				o.ended(t)
				if c.sending > 0 && (tries.Load() != int64(c.sending) || !r.empty()) {
					t.Errorf("%d attempts, left %v", tries.Load(), listed(r.store))
				}
				if used := r.Groups(); len(used) > 0 && used[0].Used != 0 {
					t.Errorf("slots are still taken: %+v", used)
				}
				r.stop()
			})
		})
	}
}

// TestRefusalHidesTheTarget: the sender learns the destination's words, not who is behind the alias.
func TestRefusalHidesTheTarget(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(_ context.Context, w *Work) []Outcome {
			return all(w, Outcome{State: Failed, Host: "mx.one.test", Reply: reply.New(550, "5.7.1", "Mail for secret@one.test looks like spam")})
		})
		o := offer(t, "secret@one.test")
		answer, err := r.Forward(t.Context(), o.Offer, 25*time.Second)
		want := "550 5.7.1 The destination refused the message: Mail for alias@here.test looks like spam"
		if err != nil || answer.Refused == nil || answer.Refused.String() != want {
			t.Errorf("%v, %v", answer, err)
		}
		if !r.empty() || len(r.dsns) != 0 {
			t.Error("something is left of what was refused")
		}
		o.ended(t)
	})
}

// A refusal that went through a chain of servers like this one keeps its reason: each would else put the
// same words in front, until nothing else is left of the text.
func TestRefusalThroughAChain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		said := reply.New(554, "5.4.6", "it is in a loop")
		for range 10 {
			r := newRig(t, func(_ context.Context, w *Work) []Outcome {
				return all(w, Outcome{State: Failed, Host: "mx.one.test", Reply: said})
			})
			o := offer(t, "secret@one.test")
			answer, err := r.Forward(t.Context(), o.Offer, 25*time.Second)
			if err != nil || answer.Refused == nil {
				t.Fatalf("%v, %v", answer, err)
			}
			o.ended(t)
			said = answer.Refused
		}
		if want := "554 5.4.6 The destination refused the message: it is in a loop"; said.String() != want {
			t.Error(said)
		}
	})
}

// TestForwardQueuesWhoWouldWait: a group without a free slot, a held recipient, no time to wait, and
// a success report that somebody wants.
func TestForwardQueuesWhoWouldWait(t *testing.T) {
	for name, change := range map[string]func(r *rig, o *offered, within *time.Duration){
		"no slot": func(r *rig, o *offered, _ *time.Duration) { r.slots.fill("one.test") },
		"held":    func(_ *rig, o *offered, _ *time.Duration) { o.Envelope.Recipients[0].State = Held },
		"no time": func(_ *rig, _ *offered, within *time.Duration) { *within = 0 },
		"report":  func(_ *rig, o *offered, _ *time.Duration) { o.Envelope.Recipients[0].Notify = []string{"SUCCESS"} },
		"crowd":   func(r *rig, _ *offered, _ *time.Duration) { r.waiting.Store(maxWaiting) },
		"the end": func(r *rig, _ *offered, _ *time.Duration) { r.crew.close() },
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, after(time.Second, byName))
				o, within, began := offer(t, "good@one.test"), 25*time.Second, time.Now()
				change(r, o, &within)
				answer, err := r.Forward(t.Context(), o.Offer, within)
				took := map[string]time.Duration{"no slot": slotPatience, "report": time.Second}[name]
				if err != nil || answer != (Answer{}) || time.Since(began) != took {
					t.Errorf("%+v, %v after %v", answer, err, time.Since(began))
				}
				if name != "report" && r.empty() {
					t.Error("it is not in the queue")
				}
				o.ended(t)
			})
		})
	}
}

// TestForwardOnAFullDisk: nobody answers for what could not be kept, and attempts under way are cut
// off; but what everybody has needs no disk.
func TestForwardOnAFullDisk(t *testing.T) {
	for name, want := range map[string]bool{"good@one.test": true, "busy@one.test": false, "slow@one.test": false} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				r := newRig(t, func(ctx context.Context, w *Work) []Outcome {
					if w.Envelope.Recipients[0].Address.Local == "slow" {
						<-ctx.Done()
						return nil
					}
					return after(time.Second, byName)(ctx, w)
				})
				var full atomic.Bool
				full.Store(true)
				r.Queue.store = fullStore{r.Queue.store}
				o := offer(t, name)
				answer, err := r.Forward(t.Context(), o.Offer, 25*time.Second)
				if answer.Forwarded != want || (err == nil) != want || !want && !errors.Is(err, ErrFull) {
					t.Errorf("%+v, %v", answer, err)
				}
				o.ended(t)
			})
		})
	}
}

type fullStore struct{ Store }

func (fullStore) Add(*Envelope, io.Reader, ...*Work) error { return ErrFull }

// TestHandedOverIsNotRepeated: what is under way when the sender has its answer is recorded when it
// ends, and made once; after a crash it is made again.
func TestHandedOverIsNotRepeated(t *testing.T) {
	for _, crash := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			var tries atomic.Int64
			deliver := func(ctx context.Context, w *Work) []Outcome {
				tries.Add(1)
				body, err := w.Body()
				if err != nil {
					t.Error(err)
					return nil
				}
				if b, err := io.ReadAll(body); err != nil || !bytes.HasSuffix(b, []byte("Hello\r\n")) {
					t.Errorf("%q, %v", b, err)
				}
				return after(time.Hour, byName)(ctx, w)
			}
			r := newRig(t, deliver)
			r.run()
			o := offer(t, "good@one.test")
			if answer, err := r.Forward(t.Context(), o.Offer, 25*time.Second); err != nil || answer != (Answer{}) {
				t.Fatalf("%+v, %v", answer, err)
			}
			if crash {
				r.stop()
				if err := r.store.Close(); err != nil {
					t.Fatal(err)
				}
				r.restart(Options{}, deliver)
				r.run()
			}
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			if want := map[bool]int64{false: 1, true: 2}[crash]; tries.Load() != want || !r.empty() {
				t.Errorf("%d attempts, want %d, left %v", tries.Load(), want, listed(r.store))
			}
			r.stop()
			o.ended(t)
		})
	}
}

// TestPanicOverWhatWasHandedOverIsContained: in the session, and when the attempt ends after it.
func TestPanicOverWhatWasHandedOverIsContained(t *testing.T) {
	for _, takes := range []time.Duration{time.Second, time.Minute} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, nil)
			r.restart(Options{Sign: func(string, io.Reader) (string, error) { panic("no key") }}, after(takes, byName))
			o := offer(t, "bad@one.test", "busy@two.test")
			if answer, err := r.Forward(t.Context(), o.Offer, 25*time.Second); err != nil || answer != (Answer{}) {
				t.Fatalf("%+v, %v", answer, err)
			}
			time.Sleep(2 * time.Minute)
			o.ended(t)
			if !strings.Contains(r.log.String(), "no key") || r.store.Get(idA) == nil {
				t.Errorf("left %v, log:\n%s", listed(r.store), r.log)
			}
		})
	}
}
