package relay

import (
	"net/netip"
	"testing"
	"time"

	"relayd/address"
)

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
