package queue

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// waitingSessions has n sessions ask for a slot in a group without any left, one after the other. Each
// tells by its number that it got one, or by -1 that it did not.
func waitingSessions(t *testing.T, s *slots, n int) <-chan int {
	s.fill("g")
	got := make(chan int, n)
	for i := range n {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), slotPatience)
			defer cancel()
			if !s.takeSoon(ctx, []string{"g"}) {
				i = -1
			}
			got <- i
		}()
		synctest.Wait()
	}
	return got
}

func TestSessionsGetSlotsInTheirTurn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, _ := newSlots(1000, 20)
		got := waitingSessions(t, s, 3)
		for want := range 2 {
			s.release("g")
			if i := <-got; i != want {
				t.Errorf("session %d has the slot of session %d", i, want)
			}
		}
		if s.take("g") {
			t.Error("a slot is there for somebody who has not waited")
		}
		if i := <-got; i != -1 {
			t.Errorf("session %d got a slot that nobody gave back", i)
		}
		s.release("g")
		s.release("g")
		if used := s.fill("g"); used != firstSlots {
			t.Errorf("%d slots are left, of %d", used, firstSlots)
		}
	})
}

// Else sessions that come and come would keep queued mail waiting for ever.
func TestEveryOtherSlotIsForQueuedMail(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, _ := newSlots(1000, 20)
		got := waitingSessions(t, s, 6)
		var order string
		for range 6 {
			s.look()
			if s.takeWaiting("g", 1000) {
				t.Fatal("queued mail has a slot that sessions had")
			}
			s.release("g")
			synctest.Wait()
			select {
			case i := <-got:
				order += fmt.Sprint(i)
			default:
				if s.look(); !s.takeWaiting("g", 1000) {
					t.Fatal("the slot that was left is not there")
				}
				order += "q"
			}
		}
		if order != "q0q1q2" {
			t.Errorf("slots went to %s", order)
		}
		for range 3 {
			<-got
		}
	})
}

// A pause ends the waiting for nobody, but no slot is given while it lasts.
func TestNoTurnInAPausedGroup(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, now := newSlots(1000, 20)
		got := waitingSessions(t, s, 1)
		s.pause("g", now.Add(time.Minute))
		s.release("g")
		if i := <-got; i != -1 {
			t.Error("a slot in a paused group")
		}
		if s.takeSoon(t.Context(), []string{"g"}) {
			t.Error("a slot at once in a paused group")
		}
	})
}

// A server that is slow one time of ten holds up those behind it unless there are more slots, though its
// fastest answers would need no more.
func TestNowAndThenSlowServerGetsMoreSlots(t *testing.T) {
	s, _ := newSlots(1000, 20)
	s.take("g")
	for i := range 200 {
		took := time.Millisecond
		if i%10 == 0 {
			took = time.Second
		}
		s.heed("g", experience{s.round("g"), took, []Outcome{taken}})
	}
	if got := s.window("g"); got != 20 {
		t.Errorf("%d slots", got)
	}
}
