//go:build interop

package interop

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/control"
	"relayd/internal/sink"
	"relayd/internal/testnet"
)

// A circle is two relayds, each of which forwards loop@ its domain to the other, and a sink that is
// everybody else. fork@ comes back twice each time.
type circle struct {
	sites   []*site
	daemons []*daemon
	snk     *sink.Sink
}

func newCircle(t *testing.T, settings string) *circle {
	t.Helper()
	port := strconv.Itoa(testnet.LocalPort(t))
	snk, err := sink.Start(sink.Options{Addr: net.JoinHostPort("127.0.0.3", port)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(snk.Close)
	zone := "elsewhere.test. MX 10 mx.elsewhere.test.\nmx.elsewhere.test. A 127.0.0.3\n"
	names := testnet.NewDNS(t, "")
	side := func(domain, ip, other string) *site {
		s := newSite(t, fmt.Sprintf("%s[listen]\nsmtp = [\"%s:%s\"]\nsubmission = []\nsubmissions = []\n[dns]\nservers = [%q]\n[outbound]\nport = %s\n",
			settings, ip, port, names.Addr(), port))
		s.write("relayd.toml", strings.Replace(s.read("relayd.toml"), hostname, "mx."+domain, 1))
		s.addDomain(domain, fmt.Sprintf("loop: loop@%[1]s\nfork: fork@%[1]s, fork@more.%[1]s\n", other))
		s.addDomain("more."+domain, "fork: fork@"+other+"\n")
		for _, name := range []string{domain, "more." + domain} {
			zone += fmt.Sprintf("%s. MX 10 mx.%s.\n%[1]s. TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n", name, domain)
		}
		zone += fmt.Sprintf("mx.%s. A %s\nmx.%[1]s. TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n", domain, ip)
		for _, k := range s.keys {
			zone += k.Record().Zone() + "\n"
		}
		return s
	}
	c := &circle{snk: snk, sites: []*site{side("a.test", "127.0.0.1", "b.test"), side("b.test", "127.0.0.2", "a.test")}}
	names.Set(zone + "elsewhere.test. TXT \"v=spf1 ip4:127.0.0.0/8 -all\"\n")
	for _, s := range c.sites {
		c.daemons = append(c.daemons, s.start())
	}
	return c
}

// loop sends n messages into the circle, all at once, and waits until each has come to its end. It
// returns the answers.
func (c *circle) loop(t *testing.T, local string, n int) []string {
	t.Helper()
	answers := make([]string, n)
	var wg sync.WaitGroup
	dialogs := make([]*dialog, n)
	for i := range dialogs {
		d := dial(t, c.daemons[0].address("smtp"))
		d.say("EHLO client.test", "250 ")
		d.say(fmt.Sprintf("MAIL FROM:<s%d@elsewhere.test>", i), "250 ")
		d.say("RCPT TO:<"+local+"@a.test>", "250 ")
		dialogs[i] = d
	}
	for i, d := range dialogs {
		wg.Go(func() {
			answers[i] = d.message([]byte("From: <s@elsewhere.test>\r\nSubject: round and round\r\n\r\nx\r\n"))
		})
	}
	wg.Wait()
	waitFor(t, "the queues are empty", patience, func() bool {
		left := 0
		for range 2 { // what leaves one queue after a first look may have come into the other
			for _, s := range c.sites {
				n, err := s.control().Count(t.Context(), control.Filter{})
				if err != nil {
					t.Fatal(err)
				}
				left += n
			}
		}
		return left == 0
	})
	return answers
}

// logged counts the lines of both logs with a message, and with a text anywhere.
func (c *circle) logged(msg, text string) int {
	n := 0
	for _, d := range c.daemons {
		for line := range strings.Lines(d.log.tail(1 << 30)) {
			if strings.Contains(line, `"msg":"`+msg+`"`) && strings.Contains(line, text) {
				n++
			}
		}
	}
	return n
}

// noted stops the daemons and reports whether a text stands in what they keep for the next digest.
func (c *circle) noted(text string) bool {
	found := false
	for i, d := range c.daemons {
		d.stop()
		kept, err := os.ReadFile(c.sites[i].path("state/digests"))
		found = found || err == nil && strings.Contains(string(kept), text)
	}
	return found
}

// TestLoopEnds: mail that two relays forward to each other stops soon, says why, and is told to its
// sender, once for each way on which it was lost, whether the one waits for the other or not.
func TestLoopEnds(t *testing.T) {
	t.Parallel()
	for name, settings := range map[string]string{"in the session": "", "queued": "[forward]\nanswer_within = \"0s\"\n"} {
		for _, c := range []struct {
			local        string
			messages     int
			transactions int // that are accepted for one message, at most
			dsns         int // for one sender, at most
		}{{"loop", 1, 4, 1}, {"loop", 40, 4, 1}, {"fork", 1, 30, 20}} {
			t.Run(fmt.Sprintf("%s, %d to %s", name, c.messages, c.local), func(t *testing.T) {
				w, began := newCircle(t, settings), time.Now()
				answers := w.loop(t, c.local, c.messages)
				taken := w.logged("accepted", "") - w.logged("accepted", `"from":"<>"`)
				told := map[string]int{}
				for _, m := range w.snk.Messages() {
					told[m.Rcpts[0]]++
					if m.From != "" || !strings.Contains(string(m.Data), "it is in a loop") {
						t.Errorf("from <%s> to %q:\n%s", m.From, m.Rcpts, m.Data)
					}
				}
				t.Logf("%d accepted transactions, %d DSNs, %v", taken, len(w.snk.Messages()), time.Since(began).Round(10*time.Millisecond))
				if taken > c.messages*c.transactions || w.logged("refused", "it is in a loop") == 0 {
					t.Errorf("%d transactions; the log: %s", taken, w.daemons[0].log.tail(3))
				}
				if settings != "" && !w.noted(c.local+"@") {
					t.Error("no digest will tell of what was taken and lost")
				}
				for i, answer := range answers {
					sender := fmt.Sprintf("s%d@elsewhere.test", i)
					refused := strings.HasPrefix(answer, "554 5.4.6 ")
					if !refused && !strings.HasPrefix(answer, "250 ") || (told[sender] > 0) == refused || told[sender] > c.dsns {
						t.Errorf("%s is answered %q, and gets %d DSNs", sender, answer, told[sender])
					}
				}
			})
		}
	}
}
