package main

import (
	"bufio"
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"relayd/aliases"
	"relayd/control"
)

func TestTimesAreRelative(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tool := &tool{now: func() time.Time { return now }}
	tests := []struct {
		from time.Duration
		want string
	}{
		{0, "now"}, {400 * time.Millisecond, "now"}, {59 * time.Second, "in 59s"}, {4*time.Minute + 59*time.Second, "in 4m"},
		{-2 * time.Hour, "2h ago"}, {-47 * time.Hour, "47h ago"}, {-5 * 24 * time.Hour, "5d ago"},
	}
	for _, tt := range tests {
		if got := tool.when(now.Add(tt.from)); got != tt.want {
			t.Errorf("%v is %q, want %q", tt.from, got, tt.want)
		}
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1536: "1.5KB", 50 << 20: "50.0MB"} {
		if got := size(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}

func TestNothingFromOutsideMovesTheTerminal(t *testing.T) {
	if got, want := plain("a\x1b[2J\x9bb\u202ec\td\n\xff"), "a\ufffd[2J\ufffdb\ufffdc\td\n\ufffd"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := oneLine("421 slow\r\n421\tdown"), "421 slow 421 down"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Somebody who has just said 30d reads 30 days.
func TestExpiryIsRoundedUp(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tool := &tool{now: func() time.Time { return now }}
	for left, want := range map[time.Duration]string{
		30*24*time.Hour - time.Second: "expires in 30 days", 30 * 24 * time.Hour: "expires in 30 days", 48*time.Hour - time.Second: "expires in 2 days",
		47 * time.Hour: "expires in 47 hours", 12*time.Hour - time.Second: "expires in 12 hours", 59*time.Minute + time.Second: "expires in 1 hour",
		59*time.Minute - time.Second: "expires in 59 minutes", time.Second: "expires in 1 minute", -47 * time.Hour: "expired 47 hours ago",
	} {
		if got := tool.expiry(aliases.Rule{Expires: now.Add(left)}); got != want {
			t.Errorf("%v is %q, want %q", left, got, want)
		}
	}
}

func TestStateOfADomain(t *testing.T) {
	var out bytes.Buffer
	w := bufio.NewWriter(&out)
	err := (&tool{out: w}).printDomains([]control.DomainStatus{
		{Name: "a.test", Broken: true, Stale: true}, {Name: "b.test", Stale: true, Keys: 1}, {Name: "c.test"}, {Name: "d.test", Keys: 1},
	})
	w.Flush()
	if got := strings.Fields(out.String()); err != nil || !slices.Equal(got, strings.Fields(`DOMAIN USERS ALIASES DKIM KEYS STATE
		a.test 0 0 0 broken b.test 0 0 1 old copy c.test 0 0 0 unsigned d.test 0 0 1 ok`)) {
		t.Errorf("%q, %v", got, err)
	}
}
