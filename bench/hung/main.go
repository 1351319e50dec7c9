// Command hung measures what a destination that hangs costs all others: how long messages to
// healthy destinations take from their 250 until they arrive, first with nothing else going on,
// then while thousands wait for a server that accepts and greets but never answers EHLO, then also
// for one that does not even answer at the TCP level. It exits with 1 if 99 of 100 messages take
// longer than a second.
//
//	go run ./bench/hung -n 10000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"relayd/bench/load"
	"relayd/bench/site"
	"relayd/control"
	"relayd/internal/sink"
)

func main() {
	n := flag.Int("n", 10_000, "how many `messages` wait for each server that hangs")
	period := flag.Duration("time", 30*time.Second, "how long is measured")
	flag.Parse()
	if err := run(*n, *period); err != nil {
		log.Fatal(err)
	}
}

const (
	healthy = 20 // destinations
	perSec  = 50 // messages to them, all together
	goal    = time.Second
)

// A bench is a relayd with its destinations.
type bench struct {
	daemon *site.Daemon
	client *control.Client

	mu       sync.Mutex
	accepted map[string]time.Time
	arrived  map[string]time.Time
}

func run(n int, period time.Duration) error {
	dir, err := os.MkdirTemp("", "relayd-hung-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &bench{accepted: map[string]time.Time{}, arrived: map[string]time.Time{}}
	servers := map[string]string{}
	for i := range healthy {
		good, err := sink.Start(sink.Options{Hostname: "mx.healthy.test", Discard: true, Handler: b.arrive})
		if err != nil {
			return err
		}
		defer good.Close()
		servers[fmt.Sprintf("good%d", i)] = good.Addr()
	}
	mute, err := sink.Start(sink.Options{Hostname: "mx.mute.test", Reply: func(stage, _ string, _ int) string {
		if stage == "ehlo" || stage == "helo" {
			return "<hang>"
		}
		return ""
	}})
	if err != nil {
		return err
	}
	defer mute.Close()
	hole, err := newBlackHole()
	if err != nil {
		return err
	}
	defer hole.close()
	servers["mute"], servers["hole"] = mute.Addr(), hole.addr
	if err := b.start(dir, servers); err != nil {
		return err
	}
	defer b.daemon.Kill()
	return b.measureAll(n, period)
}

// start runs a relayd that has an alias for each server.
func (b *bench) start(dir string, servers map[string]string) error {
	relay, err := site.Furnish(dir, "")
	if err != nil {
		return err
	}
	var aliases strings.Builder
	for name, addr := range servers {
		fmt.Fprintf(&aliases, "%s: me@%s.test via %s\n", name, name, addr)
	}
	if err := relay.Write("domains/example.test/aliases", aliases.String()); err != nil {
		return err
	}
	b.client = control.NewClient(filepath.Join(relay.StateDir(), "control.sock"))
	b.daemon, err = relay.Start()
	return err
}

func (b *bench) measureAll(n int, period time.Duration) error {
	var worst time.Duration
	fmt.Printf("%-34s %8s %8s %8s %8s %8s\n", "in the queue", "messages", "p50", "p99", "max", "missing")
	for _, more := range []string{"", "mute", "hole"} {
		if more != "" {
			if err := b.pile(more, n); err != nil {
				return err
			}
		}
		waiting, err := b.client.Status(context.Background())
		if err != nil {
			return err
		}
		p99, err := b.measure(fmt.Sprintf("%6d (%s)", waiting.Queue.Messages, b.says(more)), "m"+more, period)
		if err != nil {
			return err
		}
		worst = max(worst, p99)
	}
	if worst > goal {
		return fmt.Errorf("99 of 100 messages may take no longer than %v", goal)
	}
	return nil
}

func (b *bench) says(what string) string {
	return map[string]string{"": "nothing hangs", "mute": "no answer to EHLO", "hole": "and none to SYN"}[what]
}

// pile puts n messages for a server that hangs into the queue.
func (b *bench) pile(name string, n int) error {
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Minute)
	defer stop()
	g := load.New(load.Options{Addr: b.daemon.Addr, From: "stranger@elsewhere.test", To: name + "@example.test", Connections: 20, Size: 1000, Prefix: name})
	ended := make(chan error, 1)
	go func() { ended <- g.Run(ctx) }()
	err := g.Wait(ctx, n)
	stop()
	return errors.Join(err, <-ended)
}

// measure sends to the healthy destinations for a while and prints a line of the table.
func (b *bench) measure(title, prefix string, period time.Duration) (p99 time.Duration, err error) {
	ctx, stop := context.WithTimeout(context.Background(), period)
	defer stop()
	errs := make([]error, healthy)
	var wg sync.WaitGroup
	for i := range healthy {
		wg.Go(func() {
			time.Sleep(time.Duration(i) * time.Second / perSec) // one after the other
			errs[i] = load.New(load.Options{
				Addr: b.daemon.Addr, From: "stranger@elsewhere.test", To: fmt.Sprintf("good%d@example.test", i), Size: 1000,
				Prefix: fmt.Sprintf("%s-%d", prefix, i), Every: time.Second * healthy / perSec, Accepted: b.accept,
			}).Run(ctx)
		})
	}
	wg.Wait()
	latencies, missing := b.latencies(prefix)
	if len(latencies) == 0 {
		return 0, errors.Join(append(errs, errors.New("nothing was delivered"))...)
	}
	at := func(percent int) time.Duration { return latencies[(len(latencies)-1)*percent/100] }
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1fms", float64(d.Microseconds())/1000) }
	fmt.Printf("%-34s %8d %8s %8s %8s %8d\n", title, len(latencies), ms(at(50)), ms(at(99)), ms(at(100)), missing)
	return at(99), errors.Join(errs...)
}

// latencies lists how long the messages of a prefix took, shortest first, after all have had a
// while to arrive. Those that have not are missing, and counted with the time that they had.
func (b *bench) latencies(prefix string) (list []time.Duration, missing int) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		list, missing = b.soFar(prefix + "-")
		if missing == 0 || time.Now().After(end) {
			slices.Sort(list)
			return list, missing
		}
	}
}

func (b *bench) soFar(prefix string) (list []time.Duration, missing int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, from := range b.accepted {
		if !strings.HasPrefix(id, prefix) {
			continue
		}
		to, ok := b.arrived[id]
		if !ok {
			to = time.Now()
			missing++
		}
		list = append(list, max(0, to.Sub(from))) // some arrive before their 250 was read
	}
	return list, missing
}

func (b *bench) accept(id string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.accepted[id] = time.Now()
}

func (b *bench) arrive(m *sink.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.arrived[load.ID(m.Data)] = m.At
}
