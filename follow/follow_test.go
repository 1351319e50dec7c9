package follow

import "testing"

func TestOnlyTheFollowerHears(t *testing.T) {
	var b Book
	b.Tell("A", Event{What: Queued}) // to nobody
	events, stop := b.Follow("A")
	b.Tell("A", Event{What: Connected})
	b.Tell("B", Event{What: Failed})
	if !b.Followed("A") || b.Followed("B") {
		t.Error("the wrong one is followed")
	}
	for range 2 * backlog { // and does not wait for the follower
		b.Tell("A", Event{What: Delivered})
	}
	if e := <-events; e.What != Connected {
		t.Errorf("heard %v first", e)
	}
	stop()
	if b.Followed("A") {
		t.Error("followed after stop")
	}
	b.Tell("A", Event{What: Failed})
	for range len(events) {
		if e := <-events; e.What != Delivered {
			t.Fatalf("heard %v", e)
		}
	}
}
