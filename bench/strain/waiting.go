package main

import (
	"context"
	"fmt"
	"log"
	"sync"
	"sync/atomic"
	"time"

	"relayd/bench/load"
	"relayd/bench/site"
)

// idling opens connections that say EHLO and then nothing.
func (b *bench) idling() error {
	for _, kind := range []struct {
		service, title string
		goal           float64
	}{{"smtp", "in the clear", 32}, {"submissions", "under TLS", 64}} {
		if err := b.idleAt(kind.service, kind.title, kind.goal); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) idleAt(service, title string, goal float64) error {
	d, err := b.site.Start()
	if err != nil {
		return err
	}
	defer d.Kill()
	if _, err := greetings(d, service, 20); err != nil { // what is needed once
		return err
	}
	before, _, err := d.Memory()
	if err != nil {
		return err
	}
	open, err := b.open(d, service, b.idle)
	defer closeAll(open)
	if err != nil {
		return err
	}
	after, _, err := d.Memory()
	if err != nil {
		return err
	}
	took, err := greetings(d, service, 300)
	if err != nil {
		return err
	}
	b.report(fmt.Sprintf("memory of an idle connection %s (%d)", title, len(open)), float64(after-before)/float64(len(open))/1024, goal, "KiB")
	b.report("99 of 100 clients are greeted meanwhile within", percentile(took, 99), 100, "ms")
	return nil
}

// open opens n connections, 20 at a time.
func (b *bench) open(d *site.Daemon, service string, n int) ([]*client, error) {
	clients, errs := make([]*client, n), make([]error, 20)
	var wg sync.WaitGroup
	for w := range errs {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += len(errs) {
				c, err := dial(d, service, "")
				if err == nil && c.ask("EHLO idle.test") != 250 {
					err = fmt.Errorf("EHLO is not answered")
				}
				clients[i], errs[w] = c, err
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return clients, err
		}
	}
	return clients, nil
}

func closeAll(clients []*client) {
	for _, c := range clients {
		if c != nil {
			c.Close()
		}
	}
}

// greetings is how long n clients wait for their greeting, one after the other.
func greetings(d *site.Daemon, service string, n int) (took []time.Duration, err error) {
	for range n {
		began := time.Now()
		c, err := dial(d, service, "")
		if err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
		c.ask("QUIT")
		c.Close()
	}
	return took, nil
}

// slowness compares what honest clients get done alone and beside slow ones, of which one half sends
// octets of a command and the other of a body. Slow ones that relayd is tired of come back.
func (b *bench) slowness() error {
	d, err := b.site.Start()
	if err != nil {
		return err
	}
	defer d.Kill()
	alone := min(b.period/2, time.Minute)
	if _, err := b.throughput(d, "warm", 5*time.Second); err != nil {
		return err
	}
	before, err := b.throughput(d, "before", alone)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	clients, err := b.open(d, "smtp", 2000)
	defer closeAll(clients)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	var cut atomic.Int64
	for i, c := range clients {
		body := i%2 == 0
		if body {
			if err := c.begin("stranger@elsewhere.test"); err != nil {
				return err
			}
		}
		wg.Go(func() { cut.Add(slow(ctx, d, c, body)) })
	}
	during, err := b.throughput(d, "during", b.period)
	stop()
	wg.Wait()
	if err != nil {
		return err
	}
	after, err := b.throughput(d, "after", alone)
	if err != nil {
		return err
	}
	log.Printf("honest messages a second: %.0f before, %.0f beside 2000 slow clients for %s, %.0f after", before, during, b.period, after)
	log.Printf("%d times a slow client was cut off, and came back", cut.Load())
	b.report("of their throughput honest clients lose", 100*(1-during/((before+after)/2)), 20, "%")
	return nil
}

// slow is one slow client, in a body or before any command is whole. It returns how often it was cut off.
func slow(ctx context.Context, d *site.Daemon, c *client, body bool) (cut int64) {
	for {
		drip(ctx, c)
		c.Close()
		if ctx.Err() != nil {
			return cut
		}
		cut++
		var err error
		if c, err = dial(d, "smtp", ""); err != nil {
			log.Printf("a slow client does not get in again: %v", err)
			return cut
		}
		if body {
			err = c.begin("stranger@elsewhere.test")
		}
		if err != nil {
			log.Printf("a slow client gets in again, and no further: %v", err)
			return cut
		}
	}
}

// drip sends an octet a second until it is cut off.
func drip(ctx context.Context, c *client) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := c.Write([]byte("x")); err != nil {
			return
		}
	}
}

// throughput is how many messages a second ten clients get taken.
func (b *bench) throughput(d *site.Daemon, prefix string, period time.Duration) (float64, error) {
	ctx, stop := context.WithTimeout(context.Background(), period)
	defer stop()
	g := load.New(load.Options{Addr: d.Addr, From: "stranger@elsewhere.test", To: "anything@example.test", Connections: 10, Size: 4000, Prefix: prefix})
	err := g.Run(ctx)
	return float64(len(g.Accepted())) / period.Seconds(), err
}
