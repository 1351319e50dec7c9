package bans

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// A desk is a Book with a clock and a disk.
type desk struct {
	*Book
	t     *testing.T
	now   time.Time
	disk  []byte
	saves int
	sick  error // of the disk
}

func open(t *testing.T) *desk {
	d := &desk{t: t, now: noon}
	d.restart()
	return d
}

func (d *desk) restart() {
	d.Book = Open(Options{
		Load: func() ([]byte, error) { return d.disk, nil },
		Save: func(data []byte) error { d.disk, d.saves = data, d.saves+1; return d.sick },
		Now:  func() time.Time { return d.now }, Log: slog.New(slog.DiscardHandler),
	})
}

// ask tries a login without waiting: "in", "known", "slow" or until when it is refused.
func (d *desk) ask(ip, account string) string {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	known, err := d.Admit(ctx, netip.MustParseAddr(ip), account)
	refused, ok := errors.AsType[*Refusal](err)
	switch {
	case ok:
		return "until " + refused.Until.Format("15:04:05")
	case err != nil && known:
		return "known, slow"
	case err != nil:
		return "slow"
	case known:
		return "known"
	}
	return "in"
}

func (d *desk) want(ip, account, want string) {
	d.t.Helper()
	if got := d.ask(ip, account); got != want {
		d.t.Errorf("%s from %s: %s, want %s", account, ip, got, want)
	}
}

func (d *desk) fail(times int, ip, account string) {
	for range times {
		d.Failed(netip.MustParseAddr(ip), account)
	}
}

func (d *desk) succeed(ip, account string) { d.Succeeded(netip.MustParseAddr(ip), account) }

// One program with an old password must not lock out all others of its machine.
func TestThisMachineIsBannedLate(t *testing.T) {
	d := open(t)
	d.fail(fromHere-1, "127.0.0.1", "old@x.test")
	d.fail(fromHere-1, "::1", "old@x.test")
	for _, ip := range []string{"127.0.0.1", "::1", "192.0.2.1"} {
		d.want(ip, "old@x.test", "in")
		d.want(ip, "other@x.test", "in")
	}
	d.fail(1, "127.0.0.1", "old@x.test")
	d.want("127.0.0.1", "other@x.test", "until 12:01:00")
}

func TestBansDouble(t *testing.T) {
	d := open(t)
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1440, 1440} {
		d.fail(4, "192.0.2.1", "a@x.test")
		d.want("192.0.2.1", "b@x.test", "in")
		d.fail(1, "192.0.2.1", "c@x.test")
		until := d.now.Add(want * time.Minute)
		d.want("192.0.2.1", "b@x.test", "until "+until.Format("15:04:05"))
		if err := d.Check(netip.MustParseAddr("192.0.2.1"), "b@x.test"); err == nil {
			t.Error("Check lets it through")
		}
		d.want("192.0.2.2", "b@x.test", "in")
		d.now = until
		d.want("192.0.2.1", "b@x.test", "in")
	}
	d.now = d.now.Add(forgiven + 1)
	d.fail(5, "192.0.2.1", "b@x.test")
	d.want("192.0.2.1", "b@x.test", "until "+d.now.Add(time.Minute).Format("15:04:05"))
}

func TestWhatAddsUp(t *testing.T) {
	d := open(t)
	for range 100 { // a program that has an old password, and tries now and then
		d.fail(1, "192.0.2.1", "app@x.test")
		d.now = d.now.Add(15 * time.Minute)
	}
	d.want("192.0.2.1", "app@x.test", "in")
	d.fail(2, "2001:db8::1", "a@x.test")
	d.fail(2, "2001:db8::ffff:1", "b@x.test")
	d.fail(1, "2001:db8::2:1", "")
	d.want("2001:db8::abcd", "c@x.test", "until "+d.now.Add(time.Minute).Format("15:04:05"))
	d.want("2001:db8:0:1::1", "c@x.test", "in")
	d.fail(5, "::ffff:192.0.2.9", "a@x.test")
	d.want("192.0.2.9", "a@x.test", "until "+d.now.Add(time.Minute).Format("15:04:05"))
}

func TestARightPasswordForgivesThoseOfItsAccountAlone(t *testing.T) {
	d := open(t)
	for range 10 {
		d.fail(4, "192.0.2.1", "own@x.test")
		d.succeed("192.0.2.1", "own@x.test")
	}
	d.want("192.0.2.1", "other@x.test", "in")
	for range 5 { // guesses at another's between logins of one's own
		d.fail(1, "192.0.2.1", "other@x.test")
		d.succeed("192.0.2.1", "own@x.test")
	}
	d.want("192.0.2.1", "other@x.test", "until 12:01:00")
}

func TestAKnownSourceIsNotBannedButSlowed(t *testing.T) {
	d := open(t)
	d.succeed("209.85.220.41", "me@x.test")
	d.fail(5, "209.85.220.99", "else@x.test")
	d.want("209.85.220.99", "me@x.test", "known, slow")
	if err := d.Check(netip.MustParseAddr("209.85.220.99"), "me@x.test"); err != nil {
		t.Error(err)
	}
	d.want("209.85.220.41", "me@x.test", "known")
	d.want("209.85.220.99", "else@x.test", "until 12:01:00")
	d.now = noon.Add(knownFor)
	d.fail(5, "209.85.220.99", "else@x.test")
	d.want("209.85.220.99", "me@x.test", "until "+d.now.Add(time.Minute).Format("15:04:05"))
}

func TestAnAccountUnderAttackStaysOpen(t *testing.T) {
	for _, account := range []string{"me@x.test", "nobody@elsewhere.test"} {
		d := open(t)
		d.succeed("192.0.2.1", "me@x.test")
		for i := range 10 {
			d.fail(1, fmt.Sprintf("198.51.100.%d", i), account)
		}
		d.want("192.0.2.1", "me@x.test", "known")
		d.want("203.0.113.1", account, "slow")
		d.want("203.0.113.1", "else@x.test", "in")
		d.now = noon.Add(time.Minute)
		d.want("203.0.113.1", account, "in")
	}
	d := open(t)
	d.succeed("192.0.2.1", "me@x.test")
	d.fail(4, "192.0.2.1", "me@x.test")
	d.fail(4, "192.0.2.2", "me@x.test")
	d.fail(4, "192.0.2.3", "me@x.test")
	d.want("203.0.113.1", "me@x.test", "in") // who mistypes at home is no attack
}

func TestSlowedLoginsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		for i := range 10 {
			d.fail(1, fmt.Sprintf("198.51.100.%d", i), "me@x.test")
		}
		began := time.Now()
		answers := make(chan error)
		for i := range slowedAtOnce {
			go func() {
				_, err := d.Admit(context.Background(), netip.AddrFrom4([4]byte{203, 0, 113, byte(i / slowedOfOne)}), "me@x.test")
				answers <- err
			}()
		}
		synctest.Wait()
		for _, ip := range []string{"203.0.113.0", "192.0.2.1"} { // one more of the same, one more at all
			if _, err := d.Admit(context.Background(), netip.MustParseAddr(ip), "me@x.test"); !errors.Is(err, errSlowed) {
				t.Errorf("%s: %v", ip, err)
			}
		}
		for range slowedAtOnce {
			if err := <-answers; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took != delay {
			t.Errorf("it took %v", took)
		}
		if len(d.slow.of) > 0 || d.slow.count[false] != 0 {
			t.Errorf("places are not given back: %v", d.slow.of)
		}
	})
}

func TestBansSurviveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := open(t)
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan bool)
		go func() { d.Run(ctx); close(ended) }()
		d.succeed("192.0.2.1", "me@x.test")
		d.fail(10, "198.51.100.1", "me@x.test")
		d.fail(4, "198.51.100.2", "me@x.test")
		time.Sleep(time.Minute)
		synctest.Wait()
		if d.saves != 1 {
			t.Errorf("saved %d times", d.saves)
		}
		d.sick = errors.New("no space left")
		d.fail(5, "198.51.100.3", "me@x.test")
		time.Sleep(saveEvery)
		synctest.Wait()
		d.sick = nil
		stop()
		<-ended
		d.Close()
		d.restart()
		d.want("198.51.100.1", "else@x.test", "until 12:02:00")
		d.want("198.51.100.2", "else@x.test", "in")
		d.want("198.51.100.3", "else@x.test", "until 12:01:00")
		d.want("192.0.2.99", "me@x.test", "known")
		d.want("203.0.113.1", "me@x.test", "slow")
		d.now = noon.Add(2 * time.Minute)
		d.fail(5, "198.51.100.1", "me@x.test")
		d.want("198.51.100.1", "else@x.test", "until 12:06:00")
		d.now = noon.Add(-48 * time.Hour) // the clock was set back: nobody is banned for two days
		d.want("198.51.100.1", "else@x.test", "in")
	})
}

func TestLoginsGoOnWhileBansAreWritten(t *testing.T) {
	var b *Book
	saves := 0
	b = Open(Options{
		Load: func() ([]byte, error) { return nil, nil },
		Save: func([]byte) error {
			saves++
			b.Check(netip.MustParseAddr("192.0.2.1"), "me@x.test") // hangs if it waits for the disk
			return nil
		},
		Now: func() time.Time { return noon }, Log: slog.New(slog.DiscardHandler),
	})
	ended := make(chan bool)
	go func() {
		defer close(ended)
		for i := range 5000 { // the places of one account change as they are written
			b.Succeeded(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), "me@x.test")
		}
	}()
	for going := true; going; {
		select {
		case <-ended:
			going = false
		default:
		}
		b.save()
	}
	if saves == 0 {
		t.Error("nothing was saved")
	}
}

func TestDamagedStateIsForgotten(t *testing.T) {
	for _, text := range []string{"{", "[]", `{"sources":[{"key":"x"}]}`, `{"known":[{"key":"a","value":{"x":"y"}}]}`, "null", `{"sources":null,"known":[{}]}`} {
		d := &desk{t: t, now: noon, disk: []byte(text)}
		d.restart()
		d.fail(5, "192.0.2.1", "a@x.test")
		d.succeed("192.0.2.2", "a@x.test")
		d.want("192.0.2.1", "b@x.test", "until 12:01:00")
		d.save()
		if !strings.Contains(string(d.disk), "192.0.2.1/32") {
			t.Errorf("after %s saved %s", text, d.disk)
		}
	}
}

func TestListAndLift(t *testing.T) {
	d := open(t)
	d.fail(10, "192.0.2.1", "me@x.test")
	d.fail(4, "192.0.2.2", "me@x.test")
	list := d.List()
	if len(list) != 2 || Name(list[0].Source) != "192.0.2.1" || list[0].Times != 2 || !list[0].Until.Equal(noon.Add(2*time.Minute)) || list[1].Account != "me@x.test" {
		t.Fatalf("%+v", list)
	}
	lifted := d.Lift(func(b Ban) bool { return b.Source.IsValid() })
	if len(lifted) != 1 || lifted[0] != list[0] || len(d.List()) != 1 {
		t.Errorf("lifted %+v, left %+v", lifted, d.List())
	}
	d.fail(4, "192.0.2.1", "else@x.test")
	d.fail(4, "192.0.2.2", "else@x.test")
	d.want("192.0.2.1", "else@x.test", "in")
	d.want("192.0.2.2", "else@x.test", "in")
	if d.now = noon.Add(time.Minute); len(d.List()) != 0 {
		t.Errorf("%+v", d.List())
	}
}

func TestShelvesAreBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		most := rapid.IntRange(1, 8).Draw(t, "most")
		s, order := newShelf[int, int](most), []int{}
		for _, k := range rapid.SliceOf(rapid.IntRange(0, 12)).Draw(t, "keys") {
			*s.touch(k) = k
			for i, o := range order {
				if o == k {
					order = append(order[:i:i], order[i+1:]...)
					break
				}
			}
			if order = append(order, k); len(order) > most {
				order = order[1:]
			}
		}
		var got []int
		for k, v := range s.all() {
			if got = append(got, k); *v != k || s.get(k) != v {
				t.Fatalf("%d holds %d", k, *v)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(order) || len(s.byKey) != len(order) {
			t.Fatalf("got %v, want %v", got, order)
		}
	})
}

func TestAnAccountKnowsSoManyPlaces(t *testing.T) {
	d := open(t)
	for i := range placesOfOne + 1 {
		d.now = d.now.Add(time.Second)
		d.succeed(fmt.Sprintf("192.0.%d.1", i), "me@x.test")
	}
	d.want("192.0.0.1", "me@x.test", "in")
	d.want("192.0.1.1", "me@x.test", "known")
	if d.now = d.now.Add(-time.Hour); len(*d.known.get("me@x.test")) != placesOfOne {
		t.Error("there are more")
	}
}
