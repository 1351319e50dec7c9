package control

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"relayd/queue"
)

// What the admin holds is told from what is held for a cause.
func TestWhoHoldsAMessage(t *testing.T) {
	byAdmin := queue.Recipient{Status: queue.Status{State: queue.Held, LastReply: "451 4.3.0 later"}}
	cause := queue.Recipient{Status: queue.Status{State: queue.Held, Next: time.Unix(1, 0), LastReply: "550 5.7.25 no PTR"}}
	nobody := queue.Recipient{Status: queue.Status{State: queue.Held, LastReply: "held: no alias takes this"}}
	panics := queue.Recipient{Status: queue.Status{State: queue.Held, Class: "panic", LastReply: "451 4.3.0 Something went wrong here (held: it has made relayd fail repeatedly, see its log)"}}
	waiting := queue.Recipient{Status: queue.Status{State: queue.Waiting}}
	done := queue.Recipient{Status: queue.Status{State: queue.Delivered}}
	for name, c := range map[string]struct {
		recipients []queue.Recipient
		want       bool
	}{
		"by the admin": {[]queue.Recipient{done, byAdmin}, true},
		"for a cause":  {[]queue.Recipient{cause}, false},
		"for nobody":   {[]queue.Recipient{nobody}, false},
		"for panics":   {[]queue.Recipient{panics}, false},
		"by both":      {[]queue.Recipient{byAdmin, cause}, false},
		"in part":      {[]queue.Recipient{byAdmin, waiting}, false},
	} {
		m := newMessage(&queue.Envelope{Recipients: c.recipients})
		text, err := json.Marshal(m)
		if m.ByAdmin != c.want || err != nil || !c.want && strings.Contains(strings.SplitN(string(text), "recipients", 2)[0], "held_by_admin") {
			t.Errorf("%s: %s, %v", name, text, err)
		}
	}
}
