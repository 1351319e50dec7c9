package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"relayd/bench/traffic"
	"relayd/dkim"
)

// A contender is a peer in one of its settings.
type contender struct {
	peer
	title   string
	setting string
}

// A figure is what one contender did in one scenario, over all rounds.
type figure struct {
	contender string
	rounds    int
	accepted  float64 // a second
	arrived   float64 // a second
	sum       traffic.Judgement
	memory    int64 // bytes, the peak
	processes int
	cpu       time.Duration
	refused   int
	broken    int
	example   string
	problem   string // why there are no figures
}

// A bench is one run of the program.
type bench struct {
	w       *world
	f       flags
	sink    *traffic.Sink
	found   map[string]string // versions by the names of the peers that are there
	runs    uint32
	results map[string][]*figure // by scenario, in the order of the contenders
	signs   float64              // signatures a second, on all processors
	begun   time.Time
}

// measureAll is the program within its namespaces.
func measureAll(dir string, f flags) error {
	w, err := newWorld(dir)
	if err != nil {
		return err
	}
	var addrs []string
	for j := range destinations {
		addrs = append(addrs, net.JoinHostPort(destinationIP(j), "25"))
	}
	sink, err := traffic.Listen(addrs...)
	if err != nil {
		return err
	}
	defer sink.Close()
	b := &bench{w: w, f: f, sink: sink, found: map[string]string{}, results: map[string][]*figure{}, begun: time.Now()}
	b.look()
	if b.signs, err = signingRate(w); err != nil {
		return err
	}
	var chosen []scenario
	for _, s := range scenarios {
		if f.run.MatchString(s.name) && (!s.extra || f.run.String() != "") {
			chosen = append(chosen, s)
		}
	}
	for i, s := range chosen {
		b.play(s, b.begun.Add(f.limit*time.Duration(i+1)/time.Duration(len(chosen))))
	}
	fmt.Println(b.goals())
	if f.out != "" {
		return b.publish()
	}
	return nil
}

// look finds the peers.
func (b *bench) look() {
	for _, p := range peers {
		if !slices.Contains(strings.Split(b.f.peers, ","), p.name) {
			continue
		}
		version, err := p.find(b.w)
		if err != nil {
			fmt.Printf("%s is left out: %v\n", p.name, err)
			continue
		}
		b.found[p.name] = version
		fmt.Printf("%-9s %s\n", p.name, version)
	}
	fmt.Println()
}

// contenders are who takes part in a scenario.
func (b *bench) contenders(s scenario) []contender {
	var list []contender
	for _, p := range peers {
		if b.found[p.name] == "" {
			continue
		}
		list = append(list, contender{p, p.name, ""})
		if p.name == "relayd" && s.settings {
			list = append(list, contender{p, "relayd " + durable, durable}, contender{p, "relayd " + unsigned, unsigned})
		}
	}
	return list
}

// play has every contender play a scenario, in turn, in every round. A round begins before due, but for
// the first.
func (b *bench) play(s scenario, due time.Time) {
	list := b.contenders(s)
	figures := make([]*figure, len(list))
	for i, c := range list {
		figures[i] = &figure{contender: c.title}
	}
	for round := range b.f.rounds {
		if round > 0 && time.Now().After(due) {
			fmt.Printf("%s is late and has %d rounds only.\n\n", s.name, round)
			break
		}
		for i, c := range list {
			if figures[i].problem != "" {
				continue
			}
			if err := b.turn(s, c, figures[i]); err != nil {
				figures[i].problem = err.Error()
			}
		}
	}
	b.results[s.name] = figures
	for _, f := range figures {
		slices.Sort(f.sum.Latencies)
	}
	fmt.Print(b.table(s), "\n")
}

// turn starts a contender, sends and adds what it did to its figure.
func (b *bench) turn(s scenario, c contender, f *figure) (err error) {
	b.runs++
	dir := filepath.Join(b.w.dir, fmt.Sprintf("%s-%d", c.name, b.runs))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cage, err := newCage(fmt.Sprintf("%s-%d", filepath.Base(b.w.dir), b.runs))
	if err != nil {
		return err
	}
	defer cage.end()
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w; its log ends with: %s", err, lastLines(dir, 400))
		}
	}()
	if err := c.start(b.w, cage, dir, c.setting); err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	if s.idle {
		time.Sleep(2 * time.Second)
		memory, processes := cage.memory()
		f.memory, f.processes = max(f.memory, memory), max(f.processes, processes)
		f.rounds++
		return nil
	}
	b.send(s, 500*time.Millisecond, nil) // what is done only once is not measured
	cage.resetPeak()
	before := cage.cpu()
	b.send(s, time.Duration(b.f.seconds*max(1, s.longer)*float64(time.Second)), f)
	f.cpu += cage.cpu() - before
	f.memory = max(f.memory, cage.peakMemory())
	f.rounds++
	if s.submit && f.sum.Signed < f.sum.Bodies {
		return fmt.Errorf("only %d of %d bodies were signed", f.sum.Signed, f.sum.Bodies)
	}
	if f.sum.Arrived == 0 {
		return fmt.Errorf("%d messages accepted, and nothing arrived; it said: %q", f.sum.Accepted, f.example)
	}
	return nil
}

// late is how long we wait for what was accepted.
const late = 20 * time.Second

// send sends for some time, waits until all has arrived, and adds what happened to a figure, if any.
func (b *bench) send(s scenario, d time.Duration, f *figure) {
	b.runs++
	ledger := traffic.NewLedger(b.runs, 1<<18)
	b.sink.Expect(ledger, s.manner(b.w))
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	load := s.load()
	begun := time.Now()
	load.Run(ctx, ledger)
	sent := time.Since(begun)
	for end := time.Now().Add(late); ledger.Open() > 0 && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	if f == nil {
		return
	}
	time.Sleep(200 * time.Millisecond) // for duplicates
	j := ledger.Judge()
	f.accepted += float64(j.Accepted) / sent.Seconds()
	if j.Arrived > 0 {
		f.arrived += float64(j.Arrived) / j.Last.Seconds()
	}
	f.refused, f.broken = f.refused+load.Refused(), f.broken+load.Broken()
	if f.example == "" {
		f.example = load.Example()
	}
	t := &f.sum
	t.Accepted, t.Arrived, t.Lost, t.Duplicate = t.Accepted+j.Accepted, t.Arrived+j.Arrived, t.Lost+j.Lost, t.Duplicate+j.Duplicate
	t.Signed += j.Signed
	t.Bodies, t.Damaged, t.Refused, t.Strange = t.Bodies+j.Bodies, t.Damaged+j.Damaged, t.Refused+j.Refused, t.Strange+j.Strange
	t.Latencies = append(t.Latencies, j.Latencies...)
}

// lastLines is the end of all logs in a folder, about n bytes of each.
func lastLines(dir string, n int) string {
	var b strings.Builder
	files, _ := filepath.Glob(filepath.Join(dir, "*log*"))
	said, _ := filepath.Glob(filepath.Join(dir, "said"))
	spooled, _ := filepath.Glob(filepath.Join(dir, "spool/log-*"))
	for _, file := range slices.Concat(files, said, spooled) {
		if text, err := os.ReadFile(file); err == nil && len(text) > 0 {
			fmt.Fprintf(&b, "\n%s: …%s", filepath.Base(file), text[max(0, len(text)-n):])
		}
	}
	return b.String()
}

// signingRate is how many messages of 4 KiB all processors can sign in a second when they do nothing else.
func signingRate(w *world) (float64, error) {
	text := "From: <app@example.test>\r\nTo: <u@dest0.test>\r\nSubject: x\r\nDate: Mon, 1 Jun 2026 12:00:00 +0000\r\n\r\n" +
		strings.Repeat(strings.Repeat("x", 74)+"\r\n", 54)
	const each = 500
	begun := time.Now()
	errs := make([]error, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for range each {
				if _, err := dkim.Sign(strings.NewReader(text), []*dkim.Key{w.signing}, time.Now()); err != nil {
					errs[i] = err
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return 0, err
		}
	}
	return float64(each*len(errs)) / time.Since(begun).Seconds(), nil
}
