//go:build interop

package interop

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// longestFirst is how long the first delivery to a host with a dead address family may take; it
// takes 5 seconds and what the machine needs.
const longestFirst = 30 * time.Second

// TestAddressFamilies: mail gets through in its first attempt over whatever family leads to the
// destination, whether or not our own IPv6 address is fit to come first. What is sent to a dead
// address is dropped without an answer.
func TestAddressFamilies(t *testing.T) {
	t.Parallel()
	const (
		here4, there4, dead4 = "10.96.0.1", "10.96.0.2", "10.66.0.9"
		here6, there6, dead6 = "2001:db8:96::1", "2001:db8:96::2", "2001:db8:66::9"
	)
	for _, fit := range []bool{true, false} {
		t.Run(fmt.Sprintf("reverse DNS %v", fit), func(t *testing.T) {
			relay, world := newNamespace(t, "relay", there4), newNamespace(t, "world", there4)
			link(t, relay, world, here4+"/24", there4+"/24")
			for n, addr := range map[*namespace]string{relay: here6, world: there6} {
				ip(t, "-n", n.name, "address", "add", addr+"/64", "dev", "eth0", "nodad")
			}
			ip(t, "-n", relay.name, "route", "add", "default", "via", there4)
			ip(t, "-n", relay.name, "route", "add", "default", "via", there6)
			ip(t, "-n", world.name, "route", "add", "blackhole", dead4)
			ip(t, "-n", world.name, "route", "add", "blackhole", dead6)
			zone := fmt.Sprintf("listen-address=%s\nbind-interfaces\nlocal=/ip6.arpa/\n", there4)
			ours := hostname + "," + here4
			if fit {
				ours += "," + here6
			}
			zone += "host-record=" + ours + "\n"
			hosts := map[string][]string{
				"four": {there4}, "six": {there6}, "dual": {there4, there6}, "dead-six": {there4, dead6}, "dead-four": {dead4, there6},
			}
			for name, ips := range hosts {
				zone += fmt.Sprintf("mx-host=%s.test,mx.%[1]s.test,10\nhost-record=mx.%[1]s.test,%s\n", name, strings.Join(ips, ","))
			}
			world.dnsmasq(zone, nil)
			world.exchanger(there4, nil)
			world.exchanger(there6, nil)

			s := newSite(t, "[outbound]\nip = \"auto\"\n")
			s.ns = relay
			s.addDomain("example.test", "*: box@four.test\n", "app")
			d := s.start()
			known := "used only where IPv4 fails: " + here6 + " has no reverse DNS"
			if fit {
				known = "used first: " + here6 + " is " + hostname
			}
			d.log.await(t, "IPv6 was looked at", func(l logLine) bool { return strings.Contains(l.text("msg"), known) }, d.done)

			first := there4
			if fit {
				first = there6
			}
			for _, c := range []struct {
				name, over string
				deaf       bool // the address that is tried first
			}{
				{"four", there4, false},
				{"six", there6, false},
				{"dual", first, false},
				{"dead-six", there4, fit},
				{"dead-four", there6, !fit},
			} {
				began := time.Now()
				line := s.send(d, "box@"+c.name+".test", fate{tls: "none"})
				took := time.Since(began)
				if want := "mx." + c.name + ".test [" + c.over + "]"; line.text("host") != want || line.text("attempts") != "1" {
					t.Errorf("%s: by %s in %s attempts, want %s in 1", c.name, line.text("host"), line.text("attempts"), want)
				}
				if took > longestFirst {
					t.Errorf("%s: only after %s", c.name, took)
				}
				if c.deaf && took < 4*time.Second {
					t.Errorf("%s: nobody waited for the address that is silent, but for %s", c.name, took)
				}
				t.Logf("%-9s over %s: %.1f s", c.name, c.over, took.Seconds())
			}
		})
	}
}
