package filter

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestSource(t *testing.T) {
	for _, c := range []struct{ ip, domain, want string }{
		{"192.0.2.7", "example.org", "192.0.2.7/32 example.org"},
		{"::ffff:192.0.2.7", "", "192.0.2.7/32"},
		{"2001:db8:1:2:3:4:5:6", "example.org", "2001:db8:1:2::/64 example.org"},
		{"", "example.org", ""},
	} {
		ip, _ := netip.ParseAddr(c.ip)
		if got := Source(ip, c.domain); got != c.want {
			t.Errorf("%s %s: %q", c.ip, c.domain, got)
		}
	}
}

// TestSuspects: what a source's mail has come to, hour by hour ("-" refused as spam, "+" taken, " "
// an hour, "?" whether it is put off, "." whether it is not).
func TestSuspects(t *testing.T) {
	for name, story := range map[string]string{
		"two are no reason":             "--.",
		"three are":                     "---?",
		"for an hour":                   "---? .-? .",
		"three within the day":          "-           -           -.",
		"three in one night":            "-     -     -?",
		"a provider with one spammer":   "-++-++-++-++-++-++-++.",
		"one who mixes spam with ham":   "--+--+--+?",
		"what is taken is forgiven":     "---++.",
		"ham alone is not remembered":   "+++++.",
		"a day later all is forgotten":  "-----?                        .--.",
		"suspected still, but no delay": "------?   ..",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, "", Options{})
			m := r.message(spam)
			for n, step := range story {
				switch step {
				case '-':
					r.Refused(m.Source)
				case '+':
					r.Taken(m.Source)
				case ' ':
					r.clock.Advance(time.Hour)
				default:
					said := r.judge(m)
					if off := strings.HasPrefix(said, "450 4.7.1 "); off != (step == '?') {
						t.Errorf("step %d: %q, %+v", n, said, r.Suspects())
					}
				}
			}
			m.Source = Source(client, "other.test")
			if got := r.judge(m); got != "" {
				t.Errorf("another domain of the same address: %s", got)
			}
			m.Source = Source(netip.MustParseAddr("192.0.2.8"), "elsewhere.test")
			if got := r.judge(m); got != "" {
				t.Errorf("another address of the same domain: %s", got)
			}
		})
	}
}

func TestSuspectsAreKeptAndBounded(t *testing.T) {
	r := newRig(t, "", Options{})
	r.Refused("")
	for range 3 {
		r.Refused("a")
	}
	again := newRig(t, "", Options{})
	list := r.Suspects()
	list["old"] = Suspect{5, r.clock.Now().Add(-suspectAge), r.clock.Now().Add(-suspectAge)}
	list["to come"] = Suspect{5, r.clock.Now().Add(time.Hour), r.clock.Now().Add(time.Hour)}
	list["none"] = Suspect{}
	again.RestoreSuspects(list)
	if got := again.Suspects(); !reflect.DeepEqual(got, r.Suspects()) || len(got) != 1 {
		t.Errorf("%v", got)
	}
	for n := range maxSuspects + 10 {
		r.clock.Advance(time.Second)
		r.Refused(fmt.Sprint(n))
	}
	got := r.Suspects()
	if _, first := got["a"]; len(got) != maxSuspects || first {
		t.Errorf("%d sources", len(got))
	}
	if _, last := got[fmt.Sprint(maxSuspects+9)]; !last {
		t.Error("the last is not remembered")
	}
}
