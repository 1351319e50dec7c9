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
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayd/bench/site"
)

// A flood is a process of its own, so that nothing which is measured waits for its goroutines, and a
// nice one: those who guess have processors of their own, and here they are lent the ones of the server
// and of its honest clients. That it keeps its pace nevertheless is seen from its counts.
type flood struct {
	cmd     *exec.Cmd
	reading sync.WaitGroup
	counts  atomic.Pointer[tally]
}

// A tally is what has become of guesses since the flood began, by the code and the first words of the answer.
type tally struct {
	Connections int
	Answers     map[string]int
}

const (
	shutOut  = "no greeting"
	unheard  = "no answer"
	bots     = 1000 // connections at once
	regulars = 100  // addresses of every other connection, the rest of which are each from a new one
)

// startFlood begins a flood of so many guesses a second.
func (b *bench) startFlood(d *site.Daemon) (*flood, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	f := &flood{cmd: exec.Command("nice", "-n", "10", self, "-guesses", strconv.Itoa(b.guesses), "-each", strconv.Itoa(b.each), "flood", d.Addrs["submissions"])}
	f.counts.Store(&tally{})
	f.cmd.Stderr = os.Stderr
	out, err := f.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := f.cmd.Start(); err != nil {
		return nil, err
	}
	f.reading.Go(func() { // until the process ends
		for counts := json.NewDecoder(out); ; {
			t := new(tally)
			if counts.Decode(t) != nil {
				return
			}
			f.counts.Store(t)
		}
	})
	return f, nil
}

func (f *flood) stop() {
	f.cmd.Process.Kill()
	f.reading.Wait()
	f.cmd.Wait()
}

// since is what has been added to an earlier tally.
func (t *tally) since(before *tally) *tally {
	added := &tally{t.Connections - before.Connections, map[string]int{}}
	for answer, n := range t.Answers {
		added.Answers[answer] = n - before.Answers[answer]
	}
	return added
}

func (t *tally) total() (n int) {
	for _, k := range t.Answers {
		n += k
	}
	return n
}

// hashed is how many of the guesses were compared with a hash: those that were found wrong.
func (t *tally) hashed() (n int) {
	for answer, k := range t.Answers {
		if strings.HasPrefix(answer, "535") {
			n += k
		}
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
	t := tally{Answers: map[string]int{}}
	tick := time.NewTicker(100 * time.Millisecond)
	for {
		select {
		case o := <-done:
			t.Answers[o.answer]++
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
	answer    string
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
		code, text := c.login(victim(n), fmt.Sprint("guess", n))
		o.answer = inShort(code, text)
		if tried++; code == 0 || code == 421 || tried == b.each {
			c.Close()
			c = nil
		}
		done <- o
	}
}

// inShort is the code of a reply and its first words, by which its reason is known.
func inShort(code int, text string) string {
	if code == 0 {
		return unheard
	}
	words := strings.Fields(text)
	return fmt.Sprint(code, " ", strings.Join(words[:min(len(words), 6)], " "))
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
