package main

import (
	"fmt"
	"log"
	"sync"
	"sync/atomic"
	"time"

	"relayd/bench/site"
)

const (
	guesses  = 500  // a second
	atOnce   = 8000 // those who are slowed wait for seconds
	honest   = 20   // logins a second
	homeward = "192.0.2.%d"
)

// guessing has strangers guess passwords, each guess from another address, while a user logs in from
// places that are known and new ones.
func (b *bench) guessing() error {
	if err := b.configure(`proxy_from = ["127.0.0.0/8"]`); err != nil {
		return err
	}
	d, err := b.site.Start()
	if err != nil {
		return err
	}
	defer d.Kill()
	if code, _, _, err := try(d, fmt.Sprintf(homeward, 1), password); err != nil || code != 235 {
		return fmt.Errorf("the user cannot log in: %d, %v", code, err)
	}
	quiet, _, err := b.logins(d, 5*time.Second)
	if err != nil {
		return err
	}
	cpu, began := b.cpu(d), time.Now()
	answers, stop := flood(d, b.guesses) // what has begun when it is stopped is waited for
	took, nothing, err := b.logins(d, b.period)
	used := b.cpu(d) - cpu
	stop()
	elapsed := time.Since(began)
	if err != nil {
		return err
	}
	total := int64(0)
	for code := range answers {
		if n := answers[code].Load(); n > 0 {
			log.Printf("%8d guesses were answered %d", n, code)
			total += n
		}
	}
	log.Printf("%8.0f guesses a second were answered in %.0f s", float64(total)/elapsed.Seconds(), elapsed.Seconds())
	log.Printf("%d logins: half within %.0f ms and 99 of 100 within %.0f ms before, half within %.0f ms during it", len(took), percentile(quiet, 50), percentile(quiet, 99), percentile(took, 50))
	log.Printf("99 of 100 NOOPs behind these logins were answered within %.0f ms: that is the machine, not the login", percentile(nothing, 99))
	b.report("processors that relayd keeps busy, TLS included", used.Seconds()/b.period.Seconds(), 1, "")
	b.report("99 of 100 logins from known places take", percentile(took, 99), 300, "ms")
	return nil
}

// cpu is 0 where it cannot be known, which Start has seen to.
func (b *bench) cpu(d *site.Daemon) time.Duration {
	used, _ := d.CPU()
	return used
}

// try logs in once and returns the answer, how long AUTH took, and then a command that does nothing.
func try(d *site.Daemon, from, secret string) (code int, took, nothing time.Duration, err error) {
	c, err := dial(d, "submissions", from)
	if err != nil {
		return 0, 0, 0, err
	}
	defer c.Close()
	if code := c.ask("EHLO client.test"); code != 250 {
		return code, 0, 0, fmt.Errorf("EHLO is answered %d", code)
	}
	began := time.Now()
	code = c.login(user, secret)
	took = time.Since(began)
	if code == 235 {
		c.ask("NOOP")
	}
	return code, took, time.Since(began) - took, nil
}

// logins has the user log in from near where that was done before, at a steady pace.
func (b *bench) logins(d *site.Daemon, period time.Duration) (took, nothing []time.Duration, err error) {
	tick := time.NewTicker(time.Second / honest)
	defer tick.Stop()
	for end, n := time.Now().Add(period), 0; time.Now().Before(end); n++ {
		<-tick.C
		code, one, noop, err := try(d, fmt.Sprintf(homeward, n%200+1), password)
		if err != nil || code != 235 {
			return nil, nil, fmt.Errorf("an honest login is answered %d, %v", code, err)
		}
		took, nothing = append(took, one), append(nothing, noop)
	}
	return took, nothing, nil
}

// flood guesses so often a second until it is stopped. The answers are counted by code.
func flood(d *site.Daemon, guesses int) (answers *[1000]atomic.Int64, stop func()) {
	answers = new([1000]atomic.Int64)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		began, slots := time.Now(), make(chan struct{}, atOnce)
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case <-time.After(time.Until(began.Add(time.Duration(n) * time.Second / time.Duration(guesses)))): // late ones make up for it
			}
			select {
			case slots <- struct{}{}:
			case <-done:
				return
			}
			wg.Go(func() {
				defer func() { <-slots }()
				from := fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255)
				code, _, _, _ := try(d, from, fmt.Sprint("guess", n)) // 0 where there was no answer
				answers[code%1000].Add(1)
			})
		}
	})
	return answers, func() { close(done); wg.Wait() }
}
