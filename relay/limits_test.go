package relay

import (
	"net/netip"
	"strconv"
	"testing"
	"time"

	"relayd/address"
)

// Who tries addresses at a catch-all from many sources does not fill the memory with them.
func TestAddressesThatWereTriedAreBounded(t *testing.T) {
	l := newLimits(func() time.Time { return noon })
	try := func(i, n int) bool {
		ip := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, byte(i >> 16), byte(i >> 8), byte(i)})
		return l.mayTry(ip, address.Address{Local: strconv.Itoa(n), Domain: "example.test"}, 1000)
	}
	for n := range 1000 {
		if !try(0, n) {
			t.Fatalf("address %d is one too many", n)
		}
	}
	if !try(0, 0) || try(0, 1000) || l.tried != 1000 {
		t.Errorf("of %d, one that was tried is refused, or a new one is not", l.tried)
	}
	l.tried = maxTried - 1 // as of many sources
	if !try(1, 0) || !try(2, 0) || l.tried != 1 || len(l.guesses) != 1 {
		t.Errorf("%d are kept in the end, of %d sources", l.tried, len(l.guesses))
	}
}

// Strangers from more sources than are counted make room for themselves, and not for a user.
func TestManySourcesDoNotEndAUsersHour(t *testing.T) {
	later := time.Duration(0)
	l := newLimits(func() time.Time { return noon.Add(later) })
	app := address.Address{Local: "app", Domain: "example.test"}
	if !l.maySend(app, 1) || l.maySend(app, 1) {
		t.Fatal("the limit of one message is not one")
	}
	for i := range maxSources + 1 {
		l.missed(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if n := len(l.unknown); n > maxSources/2 {
		t.Errorf("%d sources are kept", n)
	}
	if l.maySend(app, 1) {
		t.Error("a user may go on sending")
	}
	later = time.Hour
	if !l.maySend(app, 1) {
		t.Error("the next hour does not begin")
	}
}
