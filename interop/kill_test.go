//go:build interop

package interop

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"relayd/bench/load"
	"relayd/internal/sink"
)

// TestKill: kill -9 under load, again and again. Whatever was answered 250 arrives.
func TestKill(t *testing.T) {
	rounds := 20
	if full() {
		rounds = 200
	}
	var pause atomic.Int64 // before each answer of the sink, so that a queue builds up
	pause.Store(int64(20 * time.Millisecond))
	s, snk := newWorld(t, sink.Options{Reply: func(stage, _ string, _ int) string {
		if stage == "dot" {
			time.Sleep(time.Duration(pause.Load()))
		}
		return ""
	}}, "")
	accepted := map[string]bool{}
	for round := range rounds {
		d := s.start()
		g := load.New(load.Options{Addr: d.address("submissions"), TLS: s.tlsConfig(), User: "app@example.test", Password: password,
			From: "app@example.test", To: "friend@elsewhere.test", Connections: 20, Size: 1000 << (round % 8), Prefix: fmt.Sprint(round)})
		ended := make(chan error, 1)
		go func() { ended <- g.Run(context.Background()) }()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := g.Wait(ctx, 20+37*round%150); err != nil { // each time at another moment
			t.Errorf("round %d: %v", round, err)
		}
		cancel()
		d.kill()
		if err := <-ended; err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		for _, id := range g.Accepted() {
			accepted[id] = true
		}
	}
	waiting := len(missing(accepted, countIDs(snk)))
	pause.Store(0)
	s.start()
	copies := countIDs(snk)
	waitFor(t, "the rest", 2*patience, func() bool {
		s.retryAll() // what was under way is put off by minutes, in case it was to blame
		copies = countIDs(snk)
		return len(missing(accepted, copies)) == 0 || t.Failed()
	})
	lost, duplicates, unanswered := missing(accepted, copies), 0, 0
	for id, n := range copies {
		duplicates += n - 1
		if !accepted[id] {
			unanswered++
		}
	}
	t.Logf("%d rounds of kill -9: accepted %d, arrived %d (%d of them after the last start), lost %d, duplicates %d; %d more arrived whose answer was cut off",
		rounds, len(accepted), len(accepted)-len(lost), waiting, len(lost), duplicates, unanswered)
	if len(lost) > 0 {
		t.Errorf("lost: %v", lost)
	}
}

// countIDs counts the copies of each message that arrived.
func countIDs(s *sink.Sink) map[string]int {
	copies := map[string]int{}
	for _, m := range s.Messages() {
		copies[load.ID(m.Data)]++
	}
	return copies
}

func missing(accepted map[string]bool, copies map[string]int) (ids []string) {
	for id := range accepted {
		if copies[id] == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}
