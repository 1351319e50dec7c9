package mtasts

import (
	"context"
	"slices"
	"time"
)

const (
	// A policy that mail was sent under during the last keepFresh is fetched again each day: who
	// can suppress DNS or the policy host for a while then gains nothing.
	keepFresh    = 7 * 24 * time.Hour
	refreshAfter = 24 * time.Hour
	// forgetAfter is how long an unused failure is remembered, for the length of the next pause.
	forgetAfter = 2 * lastRetry
	// sweepEvery is how often Run looks for what is due.
	sweepEvery = time.Hour
)

// Run renews the policies that are in use, each about once a day, and forgets those that are over,
// until ctx ends. Without it every policy still works until its max_age.
func (c *Cache) Run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		c.sweep(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sweep does what is due now, one fetch after the other: deliveries need the slots more.
func (c *Cache) sweep(ctx context.Context) {
	due, dropped := c.takeStock()
	c.disk.remove(dropped...)
	for _, s := range due {
		// Whoever suppresses the TXT record must not get the policy to lapse by that.
		id, err := c.announced(ctx, s.Domain)
		if err != nil || id == "" {
			id = s.ID
		}
		c.mu.Lock()
		f := c.start(s.Domain, id)
		c.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return
		}
	}
}

// takeStock forgets what is worth nothing and returns what is due, the oldest first.
func (c *Cache) takeStock() (due []saved, dropped []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.opt.Now()
	for domain, e := range c.entries {
		switch {
		case e.worthless(now) && now.After(e.Used.Add(forgetAfter)):
			delete(c.entries, domain)
			dropped = append(dropped, domain)
		case e.due(now) && !now.Before(e.retry):
			due = append(due, e.saved)
		}
	}
	slices.SortFunc(due, func(a, b saved) int { return a.Fetched.Compare(b.Fetched) })
	return due, dropped
}

// due reports whether the policy wants to be renewed though nobody has announced a new one.
func (s *saved) due(now time.Time) bool {
	age := min(refreshAfter, s.Policy.MaxAge/2)
	return s.inForce(now) && !now.Before(s.Fetched.Add(age)) && now.Before(s.Used.Add(keepFresh))
}
