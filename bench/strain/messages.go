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
	before := b.cpu(d)
	for range times {
		if code, err := b.sendOne(d, service, from, text(from, 10<<20)); err != nil || code != 250 {
			return fmt.Errorf("a large message is answered %d, %v", code, err)
		}
	}
	used := b.cpu(d) - before // deliveries that go on at the same time are a part of it
	b.report("processor time to take "+title, used.Seconds()/times, 1, "s")
	return nil
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
		if code, _ := c.login(user, password); code != 235 {
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
	for _, one := range []bomb{
		{"a small message", 5, 60, 0, 0},
		{"1000 fields", 980, 20, 0, 0},
		{"1100 fields", 1100, 20, 0, 0},
		{"a header of 250 KiB in one field", 1, 240 << 10, 0, 0},
		{"a header of 250 KiB", 240, 1000, 0, 0},
		{"a header of 300 KiB", 300, 1000, 0, 0},
		{"10 signatures", 5, 60, 10, 1},
		{"250 KiB in 960 fields with 10 signatures", 960, 240, 10, 1},
		{"250 KiB in 960 fields with 10 signatures of 100", 960, 230, 10, 100},
		{"250 KiB in 960 fields with 10 signatures of all", 960, 110, 10, 961},
	} {
		if err := b.bomb(d, zone, one); err != nil {
			return err
		}
	}
	return nil
}

// A bomb is a message with a costly header.
type bomb struct {
	title        string
	fields, size int // octets of each
	signatures   int // true ones
	names        int // in each
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

// bomb reports what a message costs that is sent several times.
func (b *bench) bomb(d *site.Daemon, zone *zone, one bomb) error {
	const times = 20
	signed := []string{"From"}
	for n := range one.names - 1 {
		signed = append(signed, fmt.Sprintf("X-Field-%d", n))
	}
	message, err := zone.sign(header(one.fields, one.size)+"\r\nHello\r\n", one.signatures, signed)
	if err != nil {
		return err
	}
	before, code := b.cpu(d), 0
	for range times {
		if code, err = b.sendOne(d, "smtp", stranger, strings.NewReader(message)); err != nil {
			return err
		}
	}
	time.Sleep(500 * time.Millisecond) // deliveries count too
	used := b.cpu(d) - before
	log.Printf("%s: %d octets, answered %d", one.title, len(message), code)
	b.report("processor time for "+one.title, float64(used.Milliseconds())/times, 50, "ms")
	return nil
}
