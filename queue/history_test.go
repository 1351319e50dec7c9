package queue

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHistoryOfAMessage(t *testing.T) {
	var h []Run
	for n, said := range []string{"451 busy", "451 busy", "421 full", "451 busy"} {
		h = remember(h, start.Add(time.Duration(n)*time.Minute), "mx.test", said)
	}
	b, err := json.Marshal(h)
	want := `[{"first":"2026-01-02T03:04:05Z","last":"2026-01-02T03:05:05Z","count":2,"host":"mx.test","reply":"451 busy"},` +
		`{"first":"2026-01-02T03:06:05Z","last":"2026-01-02T03:06:05Z","count":1,"host":"mx.test","reply":"421 full"},` +
		`{"first":"2026-01-02T03:07:05Z","last":"2026-01-02T03:07:05Z","count":1,"host":"mx.test","reply":"451 busy"}]`
	if err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
}

// A history is bounded, keeps its beginning and its end, and never changes one that was given out.
func TestHistoryProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		replies := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", strings.Repeat("ä", 400)}), 1, 100).Draw(t, "replies")
		var h []Run
		for n, said := range replies {
			before := slices.Clone(h)
			given := h
			h = remember(h, start.Add(time.Duration(n)*time.Minute), "", said)
			if !slices.Equal(before, given) {
				t.Fatal("a history that was given out has changed")
			}
			last := h[len(h)-1]
			if len(h) > maxRuns || !h[0].First.Equal(start) || !last.Last.Equal(start.Add(time.Duration(n)*time.Minute)) ||
				!strings.HasPrefix(said, last.Reply) || len(last.Reply) > maxRunReply {
				t.Fatalf("after %d: %+v", n+1, h)
			}
		}
		for n := range h[1:] {
			if n > 0 && h[n].Reply == h[n+1].Reply {
				t.Fatalf("equal runs: %+v", h)
			}
		}
	})
}

func TestLongHistoryKeepsItsBeginning(t *testing.T) {
	var h []Run
	for n := range 50 {
		h = remember(h, start.Add(time.Duration(n)*time.Hour), "", fmt.Sprint(n))
	}
	if len(h) != 20 || h[0].Reply != "0" || h[1].Reply != "31" || h[19].Reply != "49" {
		t.Errorf("%+v", h)
	}
}
