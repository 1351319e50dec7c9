package main

import (
	"fmt"
	"log"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"relayd/bench/site"
	"relayd/users"
)

// settling is how long a flood goes on before it is measured: until what waits for its turn stands in a line.
const settling = 5 * time.Second

// guessing has strangers guess passwords, of one user and of any name, from many addresses, while users
// log in from places that are known.
func (b *bench) guessing() error {
	if err := b.configure(`proxy_from = ["127.0.0.0/8"]`); err != nil {
		return err
	}
	hashing, err := costOfHash()
	if err != nil {
		return err
	}
	d, err := b.known()
	if err != nil {
		return err
	}
	defer d.Kill()
	quiet, err := logins(d, settling, func(int) string { return user })
	if err != nil {
		return err
	}
	f, err := b.startFlood(d)
	if err != nil {
		return err
	}
	defer f.stop()
	time.Sleep(settling)
	before, used, began := f.counts.Load(), b.cpu(d), time.Now()
	took, err := logins(d, b.period, func(n int) string {
		if n%fresh == 0 {
			return fmt.Sprintf("user%d@example.test", n/fresh)
		}
		return user
	})
	if err != nil {
		return err
	}
	guesses := f.counts.Load().since(before)
	elapsed := time.Since(began).Seconds()
	b.tell(guesses, elapsed)
	all := (b.cpu(d) - used).Seconds() / elapsed
	hashed := float64(guesses.hashed()+len(took)/fresh) * hashing.Seconds() / elapsed
	log.Printf("processors that relayd keeps busy: %.2f, of which %.2f with hashing at %.0f ms each", all, hashed, hashing.Seconds()*1000)
	for _, l := range []struct {
		title  string
		logins []login
	}{{"before", quiet}, {"during", took}} {
		log.Printf("%s: %d logins with connection and TLS, half within %.0f ms; AUTH alone, 99 of 100 within %.0f ms; a NOOP behind it within %.0f ms", l.title, len(l.logins),
			percentile(each(l.logins, func(l login) time.Duration { return l.whole }), 50),
			percentile(each(l.logins, func(l login) time.Duration { return l.auth }), 99),
			percentile(each(l.logins, func(l login) time.Duration { return l.nothing }), 99))
	}
	b.report("guesses a second fall short of what was meant by", max(0, float64(b.guesses)-float64(guesses.total())/elapsed), float64(b.guesses)/100, "")
	b.report("processors that hashing keeps busy", hashed, 1, "")
	b.report("99 of 100 logins from known places take, TLS included", percentile(each(took, func(l login) time.Duration { return l.whole }), 99), 300, "ms")
	return nil
}

// known starts a relayd to which users have logged in before it was restarted: so it knows from where,
// and no password.
func (b *bench) known() (*site.Daemon, error) {
	hash, err := users.Hash(password, 10)
	if err != nil {
		return nil, err
	}
	fresh := int(b.period.Seconds()*honest)/fresh + 1
	var file strings.Builder
	fmt.Fprintf(&file, "app:%s\n", hash)
	for n := range fresh {
		fmt.Fprintf(&file, "user%d:%s\n", n, hash)
	}
	if err := b.site.Write("domains/example.test/users", file.String()); err != nil {
		return nil, err
	}
	d, err := b.site.Start()
	if err != nil {
		return nil, err
	}
	defer d.Kill()
	for n := range fresh {
		if _, err := logIn(d, fmt.Sprintf("user%d@example.test", n), fmt.Sprintf(homeward, 1)); err != nil {
			return nil, err
		}
	}
	if _, err := logIn(d, user, fmt.Sprintf(homeward, 1)); err != nil {
		return nil, err
	}
	if err := d.Stop(); err != nil {
		return nil, err
	}
	return b.site.Start()
}

// tell prints what has become of guesses.
func (b *bench) tell(t *tally, seconds float64) {
	log.Printf("%8.0f guesses a second over %.0f connections a second", float64(t.total())/seconds, float64(t.Connections)/seconds)
	for _, answer := range slices.Sorted(maps.Keys(t.Answers)) {
		log.Printf("%8.1f of them: %s", float64(t.Answers[answer])/seconds, answer)
	}
}

// cpu is 0 where it cannot be known, which Start has seen to.
func (b *bench) cpu(d *site.Daemon) time.Duration {
	used, _ := d.CPU()
	return used
}

// costOfHash is the processor time of one comparison.
func costOfHash() (time.Duration, error) {
	const times = 20
	var before, after syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &before); err != nil {
		return 0, err
	}
	for range times {
		if _, err := users.Hash(password, 10); err != nil {
			return 0, err
		}
	}
	err := syscall.Getrusage(syscall.RUSAGE_SELF, &after)
	return time.Duration(after.Utime.Nano()+after.Stime.Nano()-before.Utime.Nano()-before.Stime.Nano()) / times, err
}

func each(list []login, f func(login) time.Duration) (out []time.Duration) {
	for _, l := range list {
		out = append(out, f(l))
	}
	return out
}
