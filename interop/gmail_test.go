//go:build interop

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Where they are: relayd, and Gmail, from where also the world's mail comes.
const (
	relayIP = "10.98.0.1"
	gmailIP = "10.98.0.2"
)

// A gmail is a server that judges what it gets as Gmail does: testdata/fakegmail.py. It takes mail for
// gmail.test and busy.test, by hosts of two of Google's domains, for what it says about one group of
// hosts is not to hold up another.
type gmail struct {
	t      testing.TB
	ns     *namespace
	folder string
	site   *site
}

// A verdict is what it found out about a message that was sent to it.
type verdict struct {
	File, From, Helo, IP, Author, SPF, DMARC, Reply string
	TLS, PTR                                        bool
	Rcpts                                           []string
	DKIM                                            []signature
}

func (v verdict) String() string {
	return fmt.Sprintf("<%s> to %v: spf=%s dmarc=%s (%s) dkim=%v: %s", v.From, v.Rcpts, v.SPF, v.DMARC, v.Author, v.DKIM, v.Reply)
}

// signers are the domains whose signatures verify, and how many of each.
func (v verdict) signers() map[string]int {
	n := map[string]int{}
	for _, s := range v.DKIM {
		if s.OK {
			n[s.Domain]++
		}
	}
	return n
}

// startGmail starts the server, name servers and a relay with the domains example.test and strict.test,
// which goes by the defaults but for on_dmarc_refusal in the latter. DNS has what the two domains need
// and the given TXT records.
func startGmail(t testing.TB, aliases string, txt map[string]string) *gmail {
	t.Helper()
	relay, gm := newNamespace(t, "relay", gmailIP), newNamespace(t, "gmail", gmailIP)
	link(t, relay, gm, relayIP+"/24", gmailIP+"/24")
	s := newSite(t, "") // the ports, the resolver and the rest as an admin has them
	s.ns = relay
	s.addDomain("example.test", aliases, "app")
	s.addDomain("strict.test", aliases)
	s.write("domains/strict.test/domain.toml", "on_dmarc_refusal = \"reject\"\n")
	records := s.dnsRecords()
	for _, domain := range []string{"example.test", "strict.test"} {
		records[domain], records["_dmarc."+domain] = "v=spf1 mx ~all", "v=DMARC1; p=reject"
	}
	records[hostname] = "v=spf1 a -all"
	maps.Copy(records, txt)
	gm.dnsmasq(strings.NewReplacer("RELAY", relayIP, "GMAIL", gmailIP, "MX", hostname).Replace(`listen-address=GMAIL
bind-interfaces
local=/com/
host-record=MX,RELAY
mx-host=example.test,MX,10
mx-host=strict.test,MX,10
host-record=gmail-smtp-in.l.google.com,GMAIL
mx-host=gmail.test,gmail-smtp-in.l.google.com,5
host-record=gmail-smtp-in.l.googlemail.com,GMAIL
mx-host=busy.test,gmail-smtp-in.l.googlemail.com,5
`), records)
	g := &gmail{t: t, ns: gm, folder: t.TempDir(), site: s}
	log := newLogbook()
	done := gm.background(gm.command(python, "-W", "ignore", "-I", "testdata/fakegmail.py", gmailIP, g.folder,
		s.path("certs/mx/fullchain.pem"), s.path("certs/mx/privkey.pem")), log)
	log.await(t, "Gmail is ready", func(l logLine) bool { return l.text("msg") == "ready" }, done)
	return g
}

// courier sends to the relay from where Gmail is.
func (g *gmail) courier(t *testing.T) *courier {
	return &courier{t: t, open: func() *dialog {
		c := newDialog(t, g.ns.dial(net.JoinHostPort(relayIP, "25")))
		c.expect("the greeting", "220 ")
		c.say("EHLO client.test", "250 ")
		return c
	}}
}

// verdicts are all so far.
func (g *gmail) verdicts() []verdict {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join(g.folder, "verdicts.jsonl"))
	if err != nil {
		g.t.Fatal(err)
	}
	var list []verdict
	for line := range bytes.Lines(text) {
		var v verdict
		if err := json.Unmarshal(line, &v); err != nil && !bytes.HasSuffix(line, []byte("\n")) {
			break // it is just being written
		} else if err != nil {
			g.t.Fatalf("%s: %v", line, err)
		}
		list = append(list, v)
	}
	return list
}

// about are the verdicts about what was sent to a mailbox.
func (g *gmail) about(mailbox string) (list []verdict) {
	g.t.Helper()
	for _, v := range g.verdicts() {
		if len(v.Rcpts) == 1 && v.Rcpts[0] == mailbox {
			list = append(list, v)
		}
	}
	return list
}

// message is what a verdict is about.
func (g *gmail) message(v verdict) []byte {
	g.t.Helper()
	text, err := os.ReadFile(filepath.Join(g.folder, v.File))
	if err != nil {
		g.t.Fatal(err)
	}
	return text
}

// mend has it forget its script, or remember it.
func (g *gmail) mend(well bool) {
	g.t.Helper()
	name := filepath.Join(g.folder, "mended")
	err := os.Remove(name)
	if well {
		err = os.WriteFile(name, nil, 0o600)
	}
	if err != nil {
		g.t.Fatal(err)
	}
}
