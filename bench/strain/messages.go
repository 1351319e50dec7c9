package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"
	"sync"
	"time"

	"relayd/bench/site"
	"relayd/dkim"
)

const stranger = "stranger@elsewhere.test"

// largeness measures the time of one message of 10 MB, and the memory of 20 of 50 MB.
func (b *bench) largeness() error {
	if err := b.oneLarge("smtp", stranger, "a forwarded message of 10 MB"); err != nil {
		return err
	}
	if err := b.oneLarge("submissions", user, "a submitted message of 10 MB, under TLS and signed"); err != nil {
		return err
	}
	return b.manyLarge(20, 50<<20)
}

// oneLarge reports the processor time of a message until its answer.
func (b *bench) oneLarge(service, from, title string) error {
	d, err := b.site.Start()
	if err != nil {
		return err
	}
	defer d.Kill()
	const times = 5
	if _, err := b.sendOne(d, service, from, text(from, 1000)); err != nil {
		return err
	}
	var used time.Duration
	for range times {
		code, cost, err := b.costOf(d, service, from, text(from, 10<<20))
		if err != nil || code != 250 {
			return fmt.Errorf("a large message is answered %d, %v", code, err)
		}
		used += cost
	}
	b.report("processor time to take "+title, used.Seconds()/times, 1, "s")
	return nil
}

// costOf sends a message and waits until relayd has delivered it, which is part of its cost.
func (b *bench) costOf(d *site.Daemon, service, from string, m io.Reader) (code int, cost time.Duration, err error) {
	before := b.cpu(d)
	code, err = b.sendOne(d, service, from, m)
	return code, b.cpu(d) - before, err
}

func (b *bench) sendOne(d *site.Daemon, service, from string, m io.Reader) (int, error) {
	c, err := dial(d, service, "")
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if service == "submissions" {
		if code := c.ask("EHLO client.test"); code != 250 {
			return code, errors.New("EHLO is refused")
		}
		if code := c.login(user, password); code != 235 {
			return code, errors.New("the login is refused")
		}
	}
	return c.send(from, m)
}

// manyLarge reports the memory that it takes to take and deliver large messages at once.
func (b *bench) manyLarge(n, size int) error {
	d, err := b.site.Start()
	if err != nil {
		return err
	}
	defer d.Kill()
	at, errs := b.sink.Count(), make([]error, n)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			if code, err := b.sendOne(d, "smtp", stranger, text(stranger, size)); err != nil || code != 250 {
				errs[i] = fmt.Errorf("a large message is answered %d, %w", code, err)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	if _, err := b.sink.Wait(ctx, at+n); err != nil {
		return err
	}
	_, highest, err := d.Memory()
	b.report(fmt.Sprintf("memory at its highest for %d messages of %d MB at once", n, size>>20), float64(highest)/(1<<20), 300, "MiB")
	return err
}

// bombing sends headers that are as costly as they may be, and some that are more.
func (b *bench) bombing() error {
	zone, err := newZone()
	if err != nil {
		return err
	}
	defer zone.close()
	if err := errors.Join(b.configure("[dns]\nservers = [\""+zone.addr+"\"]"), b.site.Write("domains/example.test/domain.toml", "dmarc = \"mark\"\n")); err != nil {
		return err
	}
	d, err := b.site.Start()
	if err != nil {
		return err
	}
	defer d.Kill()
	for _, bomb := range []struct {
		title        string
		fields, size int // octets of a field
		signatures   int
	}{
		{"a small message", 5, 60, 0},
		{"1000 fields", 980, 20, 0},
		{"1100 fields", 1100, 20, 0},
		{"a header of 250 KiB in one field", 1, 240 << 10, 0},
		{"a header of 250 KiB", 240, 1000, 0},
		{"a header of 300 KiB", 300, 1000, 0},
		{"10 signatures", 5, 60, 10},
		{"250 KiB in 960 fields with 10 signatures", 960, 240, 10},
	} {
		if err := b.bomb(d, bomb.title, zone, header(bomb.fields, bomb.size), bomb.signatures); err != nil {
			return err
		}
	}
	return nil
}

// header is one of so many fields more than it needs.
func header(fields, size int) string {
	var h strings.Builder
	h.WriteString("From: <" + stranger + ">\r\nTo: <me@example.test>\r\nSubject: bomb\r\n")
	for n := range fields {
		fmt.Fprintf(&h, "X-Field-%d:", n)
		for at := 0; at < size; at += 70 {
			fmt.Fprintf(&h, " %s\r\n", strings.Repeat("x", min(70, size-at)))
		}
	}
	return h.String()
}

// bomb sends a message with so many true signatures, several times.
func (b *bench) bomb(d *site.Daemon, title string, zone *zone, header string, signatures int) error {
	const times = 20
	message := header + "\r\nHello\r\n"
	if signatures > 0 {
		var keys []*dkim.Key
		for n := range signatures {
			key, err := zone.key(fmt.Sprintf("s%d", n))
			if err != nil {
				return err
			}
			keys = append(keys, key)
		}
		fields, err := dkim.Sign(strings.NewReader(message), keys, time.Now())
		if err != nil {
			return err
		}
		message = fields + message
	}
	before, code := b.cpu(d), 0
	for range times {
		var err error
		if code, err = b.sendOne(d, "smtp", stranger, strings.NewReader(message)); err != nil {
			return err
		}
	}
	time.Sleep(500 * time.Millisecond) // deliveries count too
	used := b.cpu(d) - before
	log.Printf("%s: %d octets, answered %d", title, len(message), code)
	b.report("processor time for "+title, float64(used.Milliseconds())/times, 50, "ms")
	return nil
}
