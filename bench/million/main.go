// Command million fills a queue with deferred messages and measures how relayd lives with it: how
// long it takes until mail is accepted, how much memory it holds, how soon queue-list shows its
// first lines, and how long a new message to a healthy destination takes meanwhile.
//
//	go run ./bench/million -n 1000000
//
// It needs some 5 GB in the temporary folder for a million messages of 4 KiB, and removes them.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log"
	"log/slog"
	"net/smtp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayd/address"
	"relayd/bench/site"
	"relayd/internal/sink"
	"relayd/queue"
)

func main() {
	n := flag.Int("n", 1_000_000, "how many `messages` wait")
	flag.Parse()
	if err := run(*n); err != nil {
		log.Fatal(err)
	}
}

func run(n int) error {
	dir, err := os.MkdirTemp("", "relayd-million-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := fill(filepath.Join(dir, "state", "queue"), n); err != nil {
		return err
	}
	s, err := sink.Start(sink.Options{Addr: "127.0.0.1:0", Hostname: "mx.healthy.test"})
	if err != nil {
		return err
	}
	defer s.Close()
	relay, err := site.Furnish(dir, s.Addr())
	if err != nil {
		return err
	}
	return measure(relay, s)
}

// fill writes n messages that wait for another hour.
func fill(dir string, n int) error {
	store, err := queue.OpenStore(queue.StoreOptions{Dir: dir, Group: func(r *queue.Recipient) string { return r.Address.Domain }, Log: slog.Default()})
	if err != nil {
		return err
	}
	body := bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnop\r\n"), 64)
	began := time.Now()
	var next, failed atomic.Int64
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(n); i = next.Add(1) {
				if err := store.Add(deferred(i), bytes.NewReader(body)); err != nil {
					failed.Add(1)
				}
				if i%100_000 == 0 {
					log.Printf("%d messages put in", i)
				}
			}
		})
	}
	wg.Wait()
	if failed.Load() > 0 {
		return fmt.Errorf("%d messages could not be put in", failed.Load())
	}
	log.Printf("%d messages of %d octets accepted durably in %v (%.0f/s, 64 at a time)", n, len(body), time.Since(began).Round(time.Millisecond), float64(n)/time.Since(began).Seconds())
	return store.Close()
}

// deferred is a message that was tried once.
func deferred(i int64) *queue.Envelope {
	now := time.Now()
	e := &queue.Envelope{
		ID: queue.NewID(now), Received: now, Sender: address.Address{Local: "app", Domain: "example.test"}, Authentic: true,
		Recipients: []queue.Recipient{{
			Address:    address.Address{Local: "someone", Domain: fmt.Sprintf("d%d.dead.test", i%1000)},
			ReturnPath: address.Address{Local: "app", Domain: "example.test"},
			Status:     queue.Status{State: queue.Waiting, Attempts: 1, Next: now.Add(time.Hour), LastTry: now, LastReply: "451 4.4.1 mx.dead.test cannot be reached"},
		}},
	}
	if i%2 == 0 { // nobody may fill more than half of the queue
		e.User = e.Sender
	}
	return e
}

// measure starts relayd and says what it sees.
func measure(relay *site.Site, s *sink.Sink) error {
	began := time.Now()
	d, err := relay.Start()
	if err != nil {
		return err
	}
	defer d.Kill()
	if err := accept(d.Addr); err != nil {
		return err
	}
	log.Printf("ready to accept after %v", time.Since(began).Round(time.Millisecond))
	arrived := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := s.Wait(ctx, 1); err != nil {
		return fmt.Errorf("the new message does not arrive: %w", err)
	}
	log.Printf("a new message was delivered %v after its 250", time.Since(arrived).Round(100*time.Microsecond))
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
	if err != nil {
		return err
	}
	for line := range strings.SplitSeq(string(status), "\n") {
		if strings.HasPrefix(line, "VmRSS") || strings.HasPrefix(line, "VmHWM") {
			log.Print(strings.Join(strings.Fields(line), " "))
		}
	}
	listing := time.Now()
	head := exec.Command("sh", "-c", `"$0" -c "$1" queue-list | head -20 | wc -l`, filepath.Join(relay.Dir, "relay-util"), relay.Config())
	text, err := head.Output()
	log.Printf("queue-list | head: %s lines after %v", strings.TrimSpace(string(text)), time.Since(listing).Round(time.Millisecond))
	return err
}

// accept sends one message, without TLS: the certificate is a made one.
func accept(addr string) error {
	c, err := smtp.Dial(addr)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Mail("stranger@elsewhere.test"); err != nil {
		return err
	}
	if err := c.Rcpt("new@example.test"); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write([]byte("From: stranger@elsewhere.test\r\nSubject: new\r\n\r\nnew\r\n")); err != nil {
		return err
	}
	return w.Close()
}
