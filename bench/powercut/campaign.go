package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"time"

	"relayd/bench/load"
	"relayd/bench/site"
	"relayd/internal/sink"
)

type options struct {
	dir  string // for everything
	cuts int
	late time.Duration // of a disk that lies
}

// diskSize is small, so that the queue's segments are, too, and often at their end.
const diskSize = 192 << 20

// flushTime is that of a common disk.
const flushTime = 2 * time.Millisecond

// A campaign is a relayd under load whose power is cut.
type campaign struct {
	options
	programs *site.Site
	drive    *drive
	accepted *ledger      // answers of 250
	arrived  *ledger      // deliveries of the relayd under load
	rounds   int          // folders made so far
	gate     sync.RWMutex // held while a copy is looked into: the load stands still
}

func run(ctx context.Context, opt options) error {
	c := &campaign{options: opt, accepted: newLedger(), arrived: newLedger()}
	s, err := sink.Start(sink.Options{Hostname: "mx.healthy.test", Discard: true, Handler: c.arrived.arrive, Reply: moody})
	if err != nil {
		return err
	}
	defer s.Close()
	if c.programs, err = site.Furnish(opt.dir, s.Addr()); err != nil {
		return err
	}
	empty, err := format(opt.dir, diskSize)
	if err != nil {
		return err
	}
	c.drive = newDrive(empty, flushTime)
	c.drive.late = opt.late
	p, err := c.plug(c.drive, s.Addr())
	if err != nil {
		return err
	}
	defer p.unplug(false)
	stop := c.load(p.daemon.Addr)
	defer stop()
	return c.cutAll(ctx)
}

// moody has the queue filled at all times: it is slow now and then, and puts some messages off.
func moody(stage, _ string, nth int) string {
	switch {
	case stage != "dot":
	case nth%50 == 0:
		return "451 4.3.0 later"
	case nth%5 == 0:
		time.Sleep(30 * time.Millisecond)
	}
	return ""
}

// load sends messages of three sizes, the largest of which get a file each, until it is stopped.
func (c *campaign) load(addr string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, kind := range []struct{ size, connections int }{{1000, 8}, {30_000, 4}, {150_000, 2}} {
		for n := range kind.connections {
			wg.Go(func() {
				for round := 0; ctx.Err() == nil; round++ {
					g := load.New(load.Options{
						Addr: addr, From: "stranger@elsewhere.test", To: "anything@example.test", Size: kind.size,
						Prefix: fmt.Sprintf("%d-%d-%d", kind.size, n, round), Accepted: c.accept,
					})
					if err := g.Run(ctx); err != nil {
						log.Print(err)
					}
					pause(ctx, 100*time.Millisecond)
				}
			})
		}
	}
	return func() { cancel(); wg.Wait() }
}

// accept notes an answer of 250, and keeps its connection waiting while a copy is looked into.
func (c *campaign) accept(id string) {
	c.accepted.accept(id)
	c.gate.RLock()
	defer c.gate.RUnlock()
}

// cutAll makes the cuts and says what came of them.
func (c *campaign) cutAll(ctx context.Context) error {
	var sum outcome
	began, accepted := time.Now(), 0
	for n := range c.cuts {
		if err := pause(ctx, time.Duration(rand.Int64N(int64(800*time.Millisecond)))); err != nil {
			return err
		}
		o, err := c.cut(ctx, n%3 == 2)
		if err != nil {
			return fmt.Errorf("cut %d: %w", n+1, err)
		}
		if o.accepted == accepted && n > 0 {
			return fmt.Errorf("cut %d: nothing was accepted since the one before", n+1)
		}
		accepted = o.accepted
		sum.add(o)
		if len(o.lost) > 0 {
			log.Printf("cut %d: lost %d, among them %v", n+1, len(o.lost), o.lost[:min(5, len(o.lost))])
		}
		if (n+1)%10 == 0 {
			log.Printf("%d cuts in %v: %d accepted, %d in the queue when the power went, lost %d, damaged %d, duplicates %d", n+1,
				time.Since(began).Round(time.Second), accepted, sum.waiting, len(sum.lost), sum.damaged+c.arrived.broken(), sum.duplicates)
		}
	}
	sum.damaged += c.arrived.broken()
	sum.print(c, time.Since(began))
	if len(sum.lost) > 0 || sum.damaged > 0 {
		return errors.New("mail that was answered 250 is lost or damaged")
	}
	return nil
}

// cut takes the power away for an instant and judges what it would have left.
func (c *campaign) cut(ctx context.Context, again bool) (outcome, error) {
	content, at := c.drive.cut()
	c.gate.Lock()
	defer c.gate.Unlock()
	return c.judge(ctx, copied{content: content, at: at, again: again})
}

// A plugged disk is one with a relayd on it.
type plugged struct {
	dir    string
	disk   *disk
	site   *site.Site
	daemon *site.Daemon
}

// plug mounts a drive and starts a relayd on it, whose mail goes to smarthost.
func (c *campaign) plug(d *drive, smarthost string) (p *plugged, err error) {
	c.rounds++
	p = &plugged{dir: filepath.Join(c.dir, fmt.Sprint(c.rounds))}
	if err := os.Mkdir(p.dir, 0o700); err != nil {
		return nil, err
	}
	if p.disk, err = mount(d, p.dir); err != nil {
		return nil, err
	}
	if p.site, err = c.programs.Beside(p.dir, filepath.Join(p.disk.dir, "state"), smarthost); err == nil {
		p.daemon, err = p.site.Start()
	}
	if err != nil {
		return nil, errors.Join(err, p.unplug(false))
	}
	return p, nil
}

// unplug ends the relayd and takes the file system away, with check only if that is whole.
func (p *plugged) unplug(check bool) error {
	if p.daemon != nil {
		p.daemon.Kill()
	}
	return errors.Join(p.disk.unmount(check), os.RemoveAll(p.dir))
}
