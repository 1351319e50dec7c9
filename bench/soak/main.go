// Command soak has relayd take and forward mail for long while all goes on that goes on in a life: files are
// edited and read again, certificates renewed, and the next server refuses, asks to wait or goes away,
// at random. It counts every message that was answered 250 and watches what the process holds. It exits
// with 1 if a message is lost or damaged, a new certificate is not shown, or memory grows by more than a quarter.
//
//	go run ./bench/soak -minutes 120
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log"
	"math/rand/v2"
	"os"
	"sync"
	"syscall"
	"time"

	"relayd/bench/load"
	"relayd/bench/site"
	"relayd/internal/sink"
)

func main() {
	minutes := flag.Float64("minutes", 120, "how long, in `minutes`")
	rate := flag.Int("rate", 40, "`messages` a second")
	flag.Parse()
	s := &soak{period: time.Duration(*minutes * float64(time.Minute)), rate: *rate, copies: map[string]int{}}
	if err := s.run(); err != nil {
		log.Fatal(err)
	}
}

// A soak is a relayd under way and what is seen of it.
type soak struct {
	period   time.Duration
	rate     int
	site     *site.Site
	daemon   *site.Daemon
	accepted []string
	samples  []int64 // resident memory, every period/60
	reloads  int
	renewals int

	mu      sync.Mutex // guards the rest
	healed  bool       // the next server behaves
	copies  map[string]int
	damaged int
}

const (
	user     = "app@example.test"
	password = "correct horse battery"
	settings = `hostname = "mx.example.test"
state_dir = %q
[listen]
smtp = ["127.0.0.1:0"]
submissions = ["127.0.0.1:0"]
submission = []
[limits]
catchall_addresses = 0
[forward]
answer_within = "2s"
[outbound]
smarthost = "smtp://%s"
`
)

func (s *soak) run() error {
	dir, err := os.MkdirTemp("", "relayd-soak-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	next, err := sink.Start(sink.Options{Hostname: "mx.healthy.test", Discard: true, Handler: s.take, Reply: s.mood})
	if err != nil {
		return err
	}
	defer next.Close()
	if s.site, err = site.Furnish(dir, next.Addr()); err != nil {
		return err
	}
	if err := errors.Join(s.site.Write("relayd.toml", fmt.Sprintf(settings, s.site.StateDir(), next.Addr())), s.site.Certify(1),
		s.site.Util("user-add", user, "--password="+password), s.site.Util("dkim-keygen", "example.test")); err != nil {
		return err
	}
	if s.daemon, err = s.site.Start(); err != nil {
		return err
	}
	defer s.daemon.Kill()
	if err := s.live(); err != nil {
		return err
	}
	return s.judge()
}

// mood has one in ten of the next server's replies be bad. It never refuses for good, which would be
// a bounce and no loss.
func (s *soak) mood(stage, _ string, _ int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.healed || rand.N(10) > 0 {
		return ""
	}
	if stage == "quit" || stage == "rset" {
		return ""
	}
	return [...]string{"421 4.7.0 Slow down<close>", "451 4.3.0 Not now", "<close>", "<reset>", "<cut>"}[rand.N(5)]
}

func (s *soak) take(m *sink.Message) {
	id, whole := load.ID(m.Data), load.Whole(m.Data)
	if id == "" {
		return // a notice of relayd's own
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copies[id]++
	if !whole {
		s.damaged++
	}
}

// live lets everything go on at once for the period.
func (s *soak) live() error {
	ctx, stop := context.WithTimeout(context.Background(), s.period)
	defer stop()
	var wg sync.WaitGroup
	failed := make(chan error, 8)
	do := func(f func(context.Context) error) {
		wg.Go(func() {
			if err := f(ctx); err != nil {
				failed <- err
				stop()
			}
		})
	}
	do(func(ctx context.Context) error { return every(ctx, s.period/60, s.sample) })
	do(func(ctx context.Context) error { return every(ctx, 3*time.Second, s.reload) })
	do(func(ctx context.Context) error { return every(ctx, 20*time.Second, s.renew) })
	do(func(ctx context.Context) error { return every(ctx, 30*time.Second, s.retry) })
	do(func(ctx context.Context) error {
		return s.send(ctx, "smtp", load.Options{Addr: s.daemon.Addr, From: "stranger@elsewhere.test"})
	})
	do(func(ctx context.Context) error {
		return s.send(ctx, "submissions", load.Options{Addr: s.daemon.Addrs["submissions"], From: user, User: user, Password: password,
			TLS: &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example.test"}})
	})
	wg.Wait()
	close(failed)
	return <-failed
}

// every does something again and again until ctx ends.
func every(ctx context.Context, pace time.Duration, f func() error) error {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := f(); err != nil {
			return err
		}
	}
}

// send sends messages of all sizes, half of the rate, over connections that are made anew every ten seconds.
func (s *soak) send(ctx context.Context, name string, opt load.Options) error {
	const connections = 10
	opt.To, opt.Connections, opt.Every = "anything@example.test", connections, time.Second*2*connections/time.Duration(s.rate)
	for round := 0; ctx.Err() == nil; round++ {
		opt.Prefix, opt.Size = fmt.Sprintf("%s-%d", name, round), 500<<(round%9)
		g := load.New(opt)
		turn, stop := context.WithTimeout(ctx, 10*time.Second)
		err := g.Run(turn)
		stop()
		s.mu.Lock()
		s.accepted = append(s.accepted, g.Accepted()...)
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *soak) sample() error {
	now, _, err := s.daemon.Memory()
	s.samples = append(s.samples, now)
	if len(s.samples)%6 == 0 {
		log.Printf("%3d %%: %d messages accepted, %.1f MiB resident, %d open files", len(s.samples)*100/60, s.sent(), float64(now)/(1<<20), s.daemon.Files())
	}
	return err
}

func (s *soak) sent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.accepted)
}

// reload edits an alias file, every tenth time with a mistake, and has it read by a signal.
func (s *soak) reload() error {
	s.reloads++
	text := fmt.Sprintf("*: me@healthy.test\nx%d: me@healthy.test\n", s.reloads)
	if s.reloads%10 == 0 {
		text += "broken\n"
	}
	return errors.Join(s.site.Write("domains/example.test/aliases", text), syscall.Kill(s.daemon.PID(), syscall.SIGHUP))
}

// renew swaps the certificate and waits until the new one is shown.
func (s *soak) renew() error {
	s.renewals++
	serial := int64(s.renewals + 1)
	if err := errors.Join(s.site.Certify(serial), syscall.Kill(s.daemon.PID(), syscall.SIGHUP)); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		conn, err := tls.Dial("tcp", s.daemon.Addrs["submissions"], &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example.test"})
		if err != nil {
			return fmt.Errorf("a TLS connection during renewals: %w", err)
		}
		shown := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
		conn.Close()
		if shown == serial {
			return nil
		}
	}
	return fmt.Errorf("certificate %d is not shown", serial)
}

func (s *soak) retry() error { return s.site.Util("queue-retry", "--all") }

// judge has the queue emptied by a next server that behaves, and prints the figures.
func (s *soak) judge() error {
	s.mu.Lock()
	s.healed = true
	s.mu.Unlock()
	if err := s.site.Write("domains/example.test/aliases", "*: me@healthy.test\n"); err != nil {
		return err
	}
	lost := s.missing()
	for end := time.Now().Add(2 * time.Minute); lost > 0 && time.Now().Before(end); lost = s.missing() {
		if err := s.retry(); err != nil {
			return err
		}
		time.Sleep(time.Second)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	again := 0
	for _, n := range s.copies {
		again += n - 1
	}
	log.Printf("%d messages accepted, %d lost, %d damaged, %d duplicates; %d reloads, %d certificates", len(s.accepted), lost, s.damaged, again, s.reloads, s.renewals)
	n := len(s.samples)
	second, last := mean(s.samples[n/4:n/2]), mean(s.samples[n*3/4:])
	log.Printf("resident memory: %.1f MiB in the second quarter, %.1f MiB in the last (%+.0f %%); %d open files", second, last, 100*(last/second-1), s.daemon.Files())
	if lost > 0 || s.damaged > 0 || last > second*1.25 {
		return errors.New("that must not be")
	}
	return nil
}

// missing counts the accepted messages that are not there yet.
func (s *soak) missing() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.accepted {
		if s.copies[id] == 0 {
			n++
		}
	}
	return n
}

// mean is in MiB.
func mean(list []int64) float64 {
	sum := 0.0
	for _, v := range list {
		sum += float64(v)
	}
	return sum / max(1, float64(len(list))) / (1 << 20)
}
