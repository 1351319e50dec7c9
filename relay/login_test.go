package relay

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"relayd/reply"
)

// try logs in from an address and returns the reply, "" for a login.
func (h *house) try(ip, user, password string) string {
	h.t.Helper()
	if _, err := h.Login(context.Background(), &Client{IP: netip.MustParseAddr(ip)}, user, password); err != nil {
		return reply.From(err).String()
	}
	return ""
}

func TestWhoGuessesIsBannedWithAReason(t *testing.T) {
	h := build(t, "", exampleTest)
	for range 5 {
		if got := h.try("192.0.2.7", "app@example.test", "wrong"); !strings.HasPrefix(got, "535 5.7.8") {
			t.Fatal(got)
		}
	}
	want := "421 4.7.0 Too many wrong passwords from 192.0.2.7: no logins are taken from there until 22 November 12:01:00 UTC, which is in 60 seconds"
	for _, user := range []string{"app@example.test", "nobody@example.test", "x"} {
		if got := h.try("192.0.2.7", user, "secret"); got != want {
			t.Errorf("%s: %s", user, got)
		}
	}
	if got := h.try("192.0.2.8", "app@example.test", "secret"); got != "" {
		t.Errorf("the next house: %s", got)
	}
	h.later = time.Minute
	if got := h.try("192.0.2.7", "app@example.test", "secret"); got != "" {
		t.Errorf("when the ban is over: %s", got)
	}
}

func TestABanDoesNotHitWhoHasLoggedInFromThere(t *testing.T) {
	h := build(t, "", exampleTest)
	if got := h.try("2001:db8:7::1", "app@example.test", "secret"); got != "" {
		t.Fatal(got)
	}
	for range 5 {
		h.try("2001:db8:7::2", "second@example.test", "wrong")
	}
	if got := h.try("2001:db8:7::3", "second@example.test", "secret"); !strings.HasPrefix(got, "421 4.7.0 Too many wrong passwords from 2001:db8:7::/64:") {
		t.Errorf("who has guessed: %q", got)
	}
	if got := h.try("2001:db8:7:0::9", "app@example.test", "secret"); got != "" {
		t.Errorf("who has logged in from there: %s", got)
	}
}

// Who swaps user name and password shall find the password neither in the log nor among the bans.
func TestAPasswordInTheWrongFieldIsKeptNowhere(t *testing.T) {
	h := build(t, "", exampleTest)
	for i := range 12 {
		h.try(fmt.Sprintf("192.0.2.%d", i), "P@ss.word", "app@example.test")
	}
	for range 6 {
		h.try("192.0.2.77", "hunter2", "app@example.test")
	}
	for _, b := range h.Bans.List() {
		if b.Account != "" {
			t.Errorf("the ban of %q", b.Account)
		}
	}
}

func TestInWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		time.Second: "1 second", 1500 * time.Millisecond: "2 seconds", 2 * time.Minute: "120 seconds", 3*time.Minute + 1: "4 minutes", 24 * time.Hour: "24 hours",
	} {
		if got := inWords(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
