//go:build interop

package interop

import (
	"context"
	"fmt"
	"math/rand/v2"
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

// TestKillForwarding: kill -9 while the sender waits for the destination. What was answered 250 is
// there, and what was not, and was sent again, is there twice at most.
func TestKillForwarding(t *testing.T) {
	kills := 4
	if full() {
		kills = 40
	}
	s, snk := newWorld(t, sink.Options{Reply: func(stage, _ string, _ int) string {
		if stage == "dot" {
			time.Sleep(rand.N(20 * time.Millisecond))
		}
		return ""
	}}, "[limits]\ncatchall_addresses = 0\n")
	accepted := map[string]bool{}
	var again []string
	forwarded := 0
	for round := range kills + 1 {
		d := s.start()
		g := load.New(load.Options{Addr: d.address("smtp"), From: "stranger@elsewhere.test", To: "any@example.test",
			Connections: 2, Size: 1000, Prefix: fmt.Sprint(round), Again: again}) // more connections would be queued
		ended := make(chan error, 1)
		go func() { ended <- g.Run(context.Background()) }()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := g.Wait(ctx, len(again)+rand.N(30)); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		cancel()
		time.Sleep(rand.N(20 * time.Millisecond))
		d.kill()
		if err := <-ended; err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		for _, id := range g.Accepted() {
			accepted[id] = true
		}
		again = g.Unanswered()
		forwarded += g.Forwarded()
	}
	copies, duplicates := countIDs(snk), 0
	for id, n := range copies {
		if n > 2 {
			t.Errorf("%s is there %d times", id, n)
		}
		duplicates += n - 1
	}
	if lost := missing(accepted, copies); len(lost) > 0 || forwarded != len(accepted) {
		t.Errorf("%d of %d were forwarded; lost: %v", forwarded, len(accepted), lost)
	}
	t.Logf("%d kills while forwarding: %d answered 250, all of them there, %d duplicates", kills+1, len(accepted), duplicates)
}
