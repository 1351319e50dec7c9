//go:build interop

package mailauth

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"relayd/dkim"
)

// A peerCase is one of DMARC where RFC 7489, which the peers implement, and RFC 9989 agree.
type peerCase struct {
	From    string            `json:"from"`
	Org     string            `json:"org"`
	Records map[string]string `json:"records"` // by domain
	SPF     string            `json:"spf"`     // the domain that passed; "" for none
	DKIM    string            `json:"dkim"`
	Exists  bool              `json:"exists"` // the author's domain has an address
}

// peerCases are all combinations of where a record stands, what it says and what passed.
func peerCases() []peerCase {
	texts := []string{"p=none", "p=quarantine", "p=reject", "p=reject; sp=none", "p=none; sp=reject",
		"p=none; sp=quarantine; np=reject", "p=reject; adkim=s", "p=reject; aspf=s", "p=quarantine; adkim=s; aspf=s"}
	var cases []peerCase
	for _, author := range [][2]string{{"example.org", "example.org"}, {"news.example.org", "example.org"},
		{"example.co.uk", "example.co.uk"}, {"a.b.example.co.uk", "example.co.uk"}} {
		from, org := author[0], author[1]
		for _, text := range texts {
			for _, at := range []string{from, org, ""} {
				records := map[string]string{}
				if at != "" {
					records[org] = "v=DMARC1; p=none" // else RFC 9989 takes a subdomain with a record for an organisation
					records[at] = "v=DMARC1; " + text
				}
				for _, passed := range []string{"", from, org, "other." + org, "else.example", "x" + org} {
					for _, exists := range []bool{true, false} {
						cases = append(cases, peerCase{from, org, records, passed, "", exists}, peerCase{from, org, records, "", passed, exists})
					}
				}
			}
		}
	}
	return cases
}

// ours is what we make of a case, in the words of peers.py.
func (c peerCase) ours(t *testing.T) string {
	z := newZone("")
	for domain, text := range c.Records {
		z.add("_dmarc."+domain, "TXT", text)
	}
	if c.Exists {
		z.add(c.From, "A", "192.0.2.80")
	}
	v := &Verdict{From: parseAddress(t, "me@"+c.From), SPF: SPF{Domain: c.SPF, Result: None}}
	if c.SPF != "" {
		v.SPF.Result = Pass
	}
	if c.DKIM != "" {
		v.DKIM = []dkim.Result{{Domain: c.DKIM, Selector: "s", Kind: dkim.Pass}}
	}
	w := newWalker(z)
	v.DMARC.discover(t.Context(), w, v.From)
	v.align(t.Context(), w)
	return strings.TrimSpace(string(v.DMARC.Result) + " " + string(v.DMARC.Policy))
}

// comparable reports whether authheaders is asked: sp is read by it for subdomains only where the
// author's domain has no record itself.
func (c peerCase) comparable() bool { return !strings.Contains(c.Records[c.From], "sp=") }

// comparableToOpenDMARC reports whether libopendmarc is asked. It does not know np, and has another
// idea of which subdomains are aligned strictly.
func (c peerCase) comparableToOpenDMARC() bool {
	record := c.Records[c.From]
	if record == "" {
		record = c.Records[c.Org]
	}
	strict := strings.Contains(record, "=s") && strings.HasSuffix(c.SPF+c.DKIM, "."+c.From)
	return !strict && !strings.Contains(record, "np=")
}

// TestPeersJudgeAlike compares our DMARC with python3-authheaders and libopendmarc.
func TestPeersJudgeAlike(t *testing.T) {
	cases := peerCases()
	in, err := json.Marshal(cases)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/python3", "-W", "ignore", "testdata/peers.py")
	cmd.Stdin = bytes.NewReader(in)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python3-authheaders and opendmarc must be installed: %v", err)
	}
	var peers []struct{ Authheaders, OpenDMARC string }
	if err := json.Unmarshal(out, &peers); err != nil || len(peers) != len(cases) {
		t.Fatalf("%v: %.500s", err, out)
	}
	compared := map[string]int{}
	for i, c := range cases {
		want := c.ours(t)
		if c.comparable() {
			compared["authheaders"]++
			if peers[i].Authheaders != want {
				t.Errorf("%+v: %s, authheaders: %s", c, want, peers[i].Authheaders)
			}
		}
		if c.comparableToOpenDMARC() {
			compared["opendmarc"]++
			if result, _, _ := strings.Cut(want, " "); result == "pass" {
				want = result // it gives no policy with a pass
			}
			if peers[i].OpenDMARC != want {
				t.Errorf("%+v: %s, opendmarc: %s", c, want, peers[i].OpenDMARC)
			}
		}
	}
	t.Logf("%d cases; compared: %v", len(cases), compared)
}
