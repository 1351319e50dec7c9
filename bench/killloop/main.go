// Command killloop kills relayd with SIGKILL again and again while it takes and forwards mail, and
// counts what became of every message that was answered 250: lost, damaged, or there more than
// once. It exits with 1 if one is lost or damaged.
//
//	go run ./bench/killloop -kills 300
//	go run ./bench/killloop -kills 300 -every 50ms
//
// Twenty connections send as fast as they can, which keeps every processor busy, or one message
// each in so long. A duplicate is a message that the next server has taken and whose record had not
// been written when the kill came, so there are the more of them the longer our process waits for
// its turn.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"relayd/bench/load"
	"relayd/bench/site"
	"relayd/internal/sink"
)

func main() {
	kills := flag.Int("kills", 300, "how `often`")
	each := flag.Int("each", 100, "messages answered 250 before a kill, at least")
	every := flag.Duration("every", 0, "how often each of 20 connections sends; 0: as fast as it can")
	flag.Parse()
	if err := run(*kills, campaign{*each, *every}); err != nil {
		log.Fatal(err)
	}
}

// A campaign says how much is sent between two kills.
type campaign struct {
	each  int
	every time.Duration
}

// A tally counts what the sink was given, by the ID that the load generator gave it.
type tally struct {
	mu      sync.Mutex
	copies  map[string]int
	damaged int
}

func (t *tally) take(m *sink.Message) {
	id, whole := load.ID(m.Data), load.Whole(m.Data) // which takes a while: before it counts as taken
	t.mu.Lock()
	defer t.mu.Unlock()
	t.copies[id]++
	if !whole {
		t.damaged++
	}
}

// lost lists the accepted messages that are not there yet.
func (t *tally) lost(accepted map[string]bool) (ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id := range accepted {
		if t.copies[id] == 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

func (t *tally) duplicates() (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.copies {
		n += c - 1
	}
	return n
}

func run(kills int, c campaign) error {
	dir, err := os.MkdirTemp("", "relayd-killloop-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t := &tally{copies: map[string]int{}}
	s, err := sink.Start(sink.Options{Addr: "127.0.0.1:0", Hostname: "mx.healthy.test", Discard: true, Handler: t.take})
	if err != nil {
		return err
	}
	defer s.Close()
	relay, err := site.Furnish(dir, s.Addr())
	if err != nil {
		return err
	}
	accepted := map[string]bool{}
	for round := range kills {
		if err := c.round(relay, round, accepted); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if (round+1)%25 == 0 {
			log.Printf("%d kills: %d accepted, %d not there yet, %d duplicates", round+1, len(accepted), len(t.lost(accepted)), t.duplicates())
		}
	}
	d, err := relay.Start()
	if err != nil {
		return err
	}
	defer d.Kill()
	for deadline := time.Now().Add(3 * time.Minute); len(t.lost(accepted)) > 0 && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
	lost := len(t.lost(accepted))
	log.Printf("%d kills: %d accepted, %d lost, %d damaged, %d duplicates (%.2f for each kill)", kills, len(accepted), lost, t.damaged, t.duplicates(), float64(t.duplicates())/float64(kills))
	if lost > 0 || t.damaged > 0 {
		return fmt.Errorf("%d messages are lost and %d damaged", lost, t.damaged)
	}
	return nil
}

func (c campaign) round(relay *site.Site, round int, accepted map[string]bool) error {
	d, err := relay.Start()
	if err != nil {
		return err
	}
	g := load.New(load.Options{Addr: d.Addr, From: "stranger@elsewhere.test", To: "anything@example.test", Connections: 20, Every: c.every, Size: 500 << (round % 9), Prefix: fmt.Sprint(round)})
	ended := make(chan error, 1)
	go func() { ended <- g.Run(context.Background()) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = g.Wait(ctx, c.each+round%17)
	d.Kill()
	<-ended // its connections were cut off
	for _, id := range g.Accepted() {
		accepted[id] = true
	}
	return err
}
