package main

import (
	"fmt"
	"sync"
	"time"

	"relayd/bench/site"
)

const (
	honest   = 20 // logins a second
	fresh    = 10 // one in so many is of a user who has not logged in since the start, and needs hashing
	homeward = "192.0.2.%d"
)

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
	if code, text := c.login(name, password); code != 235 {
		return l, fmt.Errorf("an honest login is answered %d %s", code, text)
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
