package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"relayd/control"
	"relayd/internal/sink"
)

// A copied disk is what a cut has left.
type copied struct {
	content []byte
	at      time.Time      // of the cut
	before  map[string]int // deliveries until then, by whatever relayd was on the disk
	again   bool           // its power is to go once more
}

// An outcome is what came of one cut, or of all.
type outcome struct {
	cuts       int
	again      int // of them, those that were cut once more
	accepted   int // before the cut: not to be lost; the most of all cuts
	waiting    int // of them, those that were not delivered before
	lost       []string
	duplicates int // delivered before and after, or twice after
	damaged    int
	refused    int           // delivered after the cut without a 250 before: its answer was under way
	longest    time.Duration // to take up the work: mounting and starting
}

func (o *outcome) add(one outcome) {
	o.cuts++
	o.again += one.again
	o.accepted = max(o.accepted, one.accepted)
	o.waiting += one.waiting
	o.lost = append(o.lost, one.lost...)
	o.duplicates += one.duplicates
	o.damaged += one.damaged
	o.refused += one.refused
	o.longest = max(o.longest, one.longest)
}

func (o *outcome) print(c *campaign, took time.Duration) {
	fmt.Printf("power cuts                            %8d in %v, %d of them cut once more while recovering\n", o.cuts, took.Round(time.Second), o.again)
	fmt.Printf("messages answered 250                 %8d\n", o.accepted)
	fmt.Printf("flushes of the disk                   %8d\n", c.drive.flushed())
	fmt.Printf("in the queue at a cut, sum of all     %8d\n", o.waiting)
	fmt.Printf("lost                                  %8d\n", len(o.lost))
	fmt.Printf("damaged                               %8d\n", o.damaged)
	fmt.Printf("duplicates                            %8d, %.2f for each cut\n", o.duplicates, float64(o.duplicates)/float64(max(1, o.cuts)))
	fmt.Printf("kept though their 250 was not yet out %8d\n", o.refused)
	fmt.Printf("longest time to mount and start       %8v\n", o.longest.Round(time.Millisecond))
}

// judge finds out what came of a cut: it has a relayd deliver all that is on the copy.
func (c *campaign) judge(ctx context.Context, cut copied) (o outcome, err error) {
	promised := c.accepted.until(cut.at)
	if cut.before == nil {
		cut.before = c.arrived.until(cut.at)
	}
	after := newLedger()
	s, err := sink.Start(sink.Options{Hostname: "mx.healthy.test", Discard: true, Handler: after.arrive})
	if err != nil {
		return o, err
	}
	defer s.Close()
	began := time.Now()
	d := newDrive(cut.content, 0)
	p, err := c.plug(d, s.Addr())
	if err != nil {
		return o, err
	}
	o.longest = time.Since(began)
	if cut.again {
		return c.judgeAgain(ctx, cut, d, p, after)
	}
	if err := drain(ctx, p.site.StateDir()+"/control.sock"); err != nil {
		p.unplug(false)
		return o, err
	}
	if err := p.unplug(true); err != nil {
		return o, err
	}
	o.damaged = after.broken()
	o.compare(promised, cut.before, after.until(time.Now()))
	return o, nil
}

// judgeAgain cuts the power of a relayd that has just started on a copy.
func (c *campaign) judgeAgain(ctx context.Context, cut copied, d *drive, p *plugged, after *ledger) (outcome, error) {
	if err := pause(ctx, time.Duration(rand.Int64N(int64(500*time.Millisecond)))); err != nil {
		p.unplug(false)
		return outcome{}, err
	}
	content, at := d.cut()
	if err := p.unplug(false); err != nil {
		return outcome{}, err
	}
	before := maps.Clone(cut.before)
	for id, n := range after.until(at) {
		before[id] += n
	}
	o, err := c.judge(ctx, copied{content: content, at: cut.at, before: before})
	o.again = 1
	o.damaged += after.broken()
	return o, err
}

// compare counts. Copies delivered before are no fault of a cut, but one more after is.
func (o *outcome) compare(promised, before, after map[string]int) {
	o.accepted = len(promised)
	for id := range promised {
		if before[id] == 0 {
			o.waiting++
			if after[id] == 0 {
				o.lost = append(o.lost, id)
			}
		}
	}
	for id, n := range after {
		o.duplicates += n - 1
		if before[id] > 0 {
			o.duplicates++
		}
		if promised[id] == 0 {
			o.refused++
		}
	}
}

// drain has everything in a queue delivered.
func drain(ctx context.Context, socket string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	client := control.NewClient(socket)
	for n := 0; ; n++ {
		if n%50 == 0 { // messages that go meanwhile are errors
			client.Change(ctx, "retry", control.Selection{All: true})
		}
		status, err := client.Status(ctx)
		if err != nil {
			return fmt.Errorf("asking relayd: %w", err)
		}
		if status.Queue.Messages == 0 {
			return nil
		}
		if err := pause(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("%d messages do not leave the queue: %w", status.Queue.Messages, err)
		}
	}
}
