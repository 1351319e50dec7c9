package main

import (
	"testing"
	"time"
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
