// Command killloop kills relayd with SIGKILL again and again while it takes and forwards mail, and
// counts what became of every message that was answered 250: lost, damaged, or there more than
// once. It exits with 1 if one is lost or damaged.
//
//	go run ./bench/killloop -kills 300
//	go run ./bench/killloop -kills 300 -every 50ms
//	go run ./bench/killloop -kills 50 -forward
//
// Twenty connections send as fast as they can, which keeps every processor busy, or one message
// each in so long. A duplicate is a message that the next server has taken and whose record had not
// been written when the kill came. Those that it took only after the kill, from what lay in the
// network's buffers, are told apart: no record could have been written of them.
//
// With -forward two connections send, and wait for the answer of the destination, which takes some
// random milliseconds. What was not answered they send once more. A message may be there twice then,
// and one that is there more often is a failure.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"relayd/bench/load"
	"relayd/bench/site"
	"relayd/internal/sink"
)

func main() {
	c := campaign{accepted: map[string]bool{}, tally: &tally{copies: map[string]int{}}}
	kills := flag.Int("kills", 300, "how `often`")
	flag.IntVar(&c.each, "each", 100, "messages answered 250 before a kill, at least; with -forward at most")
	flag.DurationVar(&c.every, "every", 0, "how often each connection sends; 0: as fast as it can")
	flag.BoolVar(&c.forward, "forward", false, "forward while the sender waits")
	flag.Parse()
	if err := c.run(*kills); err != nil {
		log.Fatal(err)
	}
}

// A campaign is how much is sent between two kills, and what became of it.
type campaign struct {
	each      int
	every     time.Duration
	forward   bool
	tally     *tally
	accepted  map[string]bool
	again     []string // sent, and not answered
	sentAgain int
	forwarded int // answered as forwarded
}

// A tally counts what the sink was given, by the ID that the load generator gave it.
type tally struct {
	slow    bool // each message takes some random milliseconds
	mu      sync.Mutex
	copies  map[string]int
	damaged int
	dead    bool // there is no relayd
	orphans int  // copies taken meanwhile
}

func (t *tally) take(m *sink.Message) {
	id, whole := load.ID(m.Data), load.Whole(m.Data) // which takes a while: before it counts as taken
	t.pause()
	defer t.pause()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.copies[id]++
	if !whole {
		t.damaged++
	}
	if t.dead {
		t.orphans++
	}
}

func (t *tally) pause() {
	if t.slow {
		time.Sleep(rand.N(10 * time.Millisecond))
	}
}

// setDead notes whether there is a relayd.
func (t *tally) setDead(dead bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dead = dead
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

// duplicates counts copies beyond the first, in all and of the message that has the most.
func (t *tally) duplicates() (n, most int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.copies {
		n, most = n+c-1, max(most, c-1)
	}
	return n, most
}

func (c *campaign) run(kills int) error {
	dir, err := os.MkdirTemp("", "relayd-killloop-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c.tally.slow = c.forward
	s, err := sink.Start(sink.Options{Addr: "127.0.0.1:0", Hostname: "mx.healthy.test", Discard: true, Handler: c.tally.take})
	if err != nil {
		return err
	}
	defer s.Close()
	relay, err := site.Furnish(dir, s.Addr())
	if err == nil && c.forward {
		err = relay.AnswerWithin("25s", s.Addr())
	}
	if err != nil {
		return err
	}
	for round := range kills {
		if err := c.round(relay, round); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
		if (round+1)%25 == 0 {
			n, _ := c.tally.duplicates()
			log.Printf("%d kills: %d accepted, %d not there yet, %d duplicates", round+1, len(c.accepted), len(c.tally.lost(c.accepted)), n)
		}
	}
	if err := c.finish(relay); err != nil {
		return err
	}
	return c.judge(kills)
}

// round starts relayd, sends to it and kills it.
func (c *campaign) round(relay *site.Site, round int) error {
	d, err := relay.Start()
	if err != nil {
		return err
	}
	c.tally.setDead(false)
	connections, least := 20, c.each+round%17
	if c.forward { // more than relayd begins with at once at one destination would be queued
		connections, least = 2, len(c.again)+rand.N(c.each)
	}
	c.sentAgain += len(c.again)
	g := load.New(load.Options{Addr: d.Addr, From: "stranger@elsewhere.test", To: "anything@example.test", Connections: connections,
		Every: c.every, Size: 500 << (round % 9), Prefix: fmt.Sprint(round), Again: c.again})
	ended := make(chan error, 1)
	go func() { ended <- g.Run(context.Background()) }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err = g.Wait(ctx, least)
	if c.forward || c.every > 0 { // else it would always be just after an answer
		time.Sleep(rand.N(20 * time.Millisecond))
	}
	c.tally.setDead(true)
	d.Kill()
	<-ended // its connections were cut off
	c.note(g)
	return err
}

// note takes over what a generator knows when it has ended.
func (c *campaign) note(g *load.Generator) {
	c.forwarded += g.Forwarded()
	for _, id := range g.Accepted() {
		c.accepted[id] = true
	}
	if c.forward {
		c.again = g.Unanswered()
	}
}

// finish has the queue emptied and, with forward, what was not answered sent for the last time.
func (c *campaign) finish(relay *site.Site) error {
	d, err := relay.Start()
	if err != nil {
		return err
	}
	defer d.Kill()
	c.tally.setDead(false)
	c.sentAgain += len(c.again)
	ctx, stop := context.WithTimeout(context.Background(), 3*time.Minute)
	defer stop()
	if len(c.again) > 0 {
		g := load.New(load.Options{Addr: d.Addr, From: "stranger@elsewhere.test", To: "anything@example.test", Prefix: "last", Size: 1000, Again: c.again})
		running, stopRunning := context.WithCancel(ctx)
		ended := make(chan error, 1)
		go func() { ended <- g.Run(running) }()
		err = g.Wait(ctx, len(c.again))
		stopRunning()
		<-ended
		if err != nil {
			return err
		}
		c.note(g)
	}
	for len(c.tally.lost(c.accepted)) > 0 && ctx.Err() == nil {
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

// judge prints the figures, and returns an error if there is something that must not be.
func (c *campaign) judge(kills int) error {
	lost, damaged := len(c.tally.lost(c.accepted)), c.tally.damaged
	n, most := c.tally.duplicates()
	log.Printf("%d kills: %d accepted, %d lost, %d damaged, %d duplicates (%.2f for each kill), %d of one message at most; %d messages were taken after a kill",
		kills, len(c.accepted), lost, damaged, n, float64(n)/float64(kills), most, c.tally.orphans)
	if c.forward {
		log.Printf("%d were answered as forwarded; %d were sent again for want of an answer", c.forwarded, c.sentAgain)
	}
	if lost > 0 || damaged > 0 {
		return fmt.Errorf("%d messages are lost and %d damaged", lost, damaged)
	}
	if c.forward && most > 1 {
		return fmt.Errorf("one message is there %d times", most+1)
	}
	return nil
}
