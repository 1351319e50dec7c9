// Package testnet holds the pieces of a small internet that tests run against: a DNS server that
// can be told to fail, certificates of a throw-away authority, free ports, and a clock that only
// moves when it is told to. Everything listens on 127.0.0.1 and ends with the test that made it.
//
// It is for tests only; nothing outside of _test.go files imports it. The scripted mail server
// stands in internal/sink, because the playground and the benchmarks use it too.
package testnet

import (
	"net"
	"sync"
	"testing"
	"time"
)

// LocalPort returns a TCP port of 127.0.0.1 on which nothing listens. Another process may take
// it before the caller does, so prefer to listen on port 0 where that is possible.
func LocalPort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("looking for a free port: %v", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// A Clock is a time that stands still until Advance moves it. Its zero value stands at the zero
// time; NewClock gives a plausible one. Safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// NewClock returns a clock that shows noon of 1 June 2026, UTC.
func NewClock() *Clock {
	return &Clock{now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)}
}

// Now is the time that the clock shows.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock by d.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}
