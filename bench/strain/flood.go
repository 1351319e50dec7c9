package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"relayd/bench/site"
)

// A flood is a process of its own, so that nothing which is measured waits for its goroutines, and a
// nice one: those who guess have processors of their own, and here they are lent the ones of the server
// and of its honest clients. That it keeps its pace nevertheless is seen from its counts.
type flood struct {
	cmd    *exec.Cmd
	counts atomic.Pointer[tally]
}

// A tally is what has become of guesses, by the code of the answer, since the flood began: 0 where
// there was none, and shutOut where there was not even a greeting.
type tally struct {
	Connections int
	Answers     map[int]int
}

const (
	shutOut = -1
	bots    = 1000 // connections at once
	// Every second connection is from an address that is never seen again, the others are from so many.
	regulars = 100
)

// startFlood begins a flood of so many guesses a second.
func (b *bench) startFlood(d *site.Daemon) (*flood, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f := &flood{cmd: exec.Command("nice", "-n", "19", self, "-guesses", strconv.Itoa(b.guesses), "-each", strconv.Itoa(b.each), "flood", d.Addrs["submissions"])}
	f.counts.Store(&tally{})
	f.cmd.Stderr = os.Stderr
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := f.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { // until the process ends
		for counts := json.NewDecoder(out); ; {
			t := new(tally)
			if counts.Decode(t) != nil {
				return
			}
			f.counts.Store(t)
		}
	}()
	return f, nil
}

func (f *flood) stop() {
	f.cmd.Process.Kill()
	f.cmd.Wait()
}

// since is what has been added to an earlier tally.
func (t *tally) since(before *tally) *tally {
	added := &tally{t.Connections - before.Connections, map[int]int{}}
	for code, n := range t.Answers {
		added.Answers[code] = n - before.Answers[code]
	}
	return added
}

func (t *tally) total() (n int) {
	for _, k := range t.Answers {
		n += k
	}
	return n
}

// guess floods the server at addr until the process is killed, and writes a tally every tenth of a second.
func (b *bench) guess(addr string, out io.Writer) error {
	due, done := make(chan int), make(chan outcome, bots)
	for range bots {
		go bot{addr, b.each}.run(due, done)
	}
	go func() {
		began := time.Now()
		for n := 0; ; n++ { // late ones make up for it
			time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(b.guesses))))
			due <- n
		}
	}()
	t := tally{Answers: map[int]int{}}
	tick := time.NewTicker(100 * time.Millisecond)
	for {
		select {
		case o := <-done:
			t.Answers[o.code]++
			if o.connected {
				t.Connections++
			}
		case <-tick.C:
			if err := json.NewEncoder(out).Encode(t); err != nil {
				return err
			}
		}
	}
}

type outcome struct {
	code      int
	connected bool // for this guess
}

// A bot guesses on one connection until the server closes it, or so often, and then on the next one.
type bot struct {
	addr string
	each int // 0: as often as the server lets it
}

func (b bot) run(due <-chan int, done chan<- outcome) {
	var c *client
	tried := 0
	for n := range due {
		var o outcome
		if o.connected = c == nil; o.connected {
			c, tried = b.connect(n), 0
		}
		if c == nil {
			done <- outcome{shutOut, true}
			continue
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		o.code = c.login(victim(n), fmt.Sprint("guess", n))
		if tried++; o.code == 0 || o.code == 421 || tried == b.each {
			c.Close()
			c = nil
		}
		done <- o
	}
}

// victim is whom the nth guess is for: the user, or any name.
func victim(n int) string {
	if n%2 == 0 {
		return user
	}
	return fmt.Sprintf("name%d@example.test", n)
}

// connect returns nil where there is no way in.
func (b bot) connect(n int) *client {
	from := fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255)
	if n/2%2 == 0 {
		from = fmt.Sprintf("172.16.0.%d", n/4%regulars)
	}
	conn, err := net.Dial("tcp", b.addr)
	if err != nil {
		return nil
	}
	// The cheapest handshake that the server takes, for its cost is not the server's.
	c, err := greet(conn, from, &tls.Config{InsecureSkipVerify: true, ServerName: "mx.example.test", CurvePreferences: []tls.CurveID{tls.X25519}})
	if err != nil {
		return nil
	}
	if c.ask("EHLO bot.test") != 250 {
		c.Close()
		return nil
	}
	return c
}

// A login is one of an honest client: how long all of it took, of which AUTH, and a command behind it
// that does nothing.
type login struct{ whole, auth, nothing time.Duration }

// logIn logs a user in from an address.
func logIn(d *site.Daemon, name, from string) (l login, err error) {
	began := time.Now()
	c, err := dial(d, "submissions", from)
	if err != nil {
		return l, err
	}
	defer c.Close()
	if code := c.ask("EHLO client.test"); code != 250 {
		return l, fmt.Errorf("EHLO is answered %d", code)
	}
	asked := time.Now()
	if code := c.login(name, password); code != 235 {
		return l, fmt.Errorf("an honest login is answered %d", code)
	}
	l.whole, l.auth = time.Since(began), time.Since(asked)
	asked = time.Now()
	c.ask("NOOP")
	l.nothing = time.Since(asked)
	return l, nil
}

// logins starts so many logins a second, whether or not those before have ended, for a while. name says
// who logs in.
func logins(d *site.Daemon, period time.Duration, name func(n int) string) ([]login, error) {
	all := make([]login, int(period.Seconds()*honest))
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / honest)
	defer tick.Stop()
	for n := range all {
		<-tick.C
		wg.Go(func() { all[n], errs[n] = logIn(d, name(n), fmt.Sprintf(homeward, n%200+1)) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}
