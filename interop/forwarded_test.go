//go:build interop

package interop

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"relayd/dkim"
	"relayd/internal/sink"
	"relayd/internal/testnet"
)

// A judgement is what the destination finds out about a message, by programs of others.
type judgement struct {
	From   string
	Signed []string
	DMARC  string
}

func judge(t testing.TB, m *sink.Message, records map[string]string) judgement {
	t.Helper()
	const name = "message"
	out := mustRun(t, exec.Command(python, "-W", "ignore", "-I", "testdata/dmarc_judge.py",
		writeAll(t, map[string][]byte{name: m.Data}), writeJSON(t, records), writeJSON(t, map[string]string{name: m.From})))
	var all map[string]judgement
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatal(err)
	}
	return all[name]
}

// zone is the author's key as a line of a zone.
func (a *author) zone() string {
	a.t.Helper()
	text, err := os.ReadFile(a.keyFile)
	if err != nil {
		a.t.Fatal(err)
	}
	key, err := dkim.ParseKey(a.domain, authorSelector, text)
	if err != nil {
		a.t.Fatal(err)
	}
	return key.Record().Zone() + "\n"
}

// TestForwardedMailPasses: what was genuine when it came is so at its destination, by the judgement
// of others, and what was not is refused at the door.
func TestForwardedMailPasses(t *testing.T) {
	t.Parallel()
	const refusal = "550 5.7.26 Unauthenticated email from spf.test is not accepted due to domain's DMARC policy"
	snk, err := sink.Start(sink.Options{Reply: func(stage, arg string, nth int) string {
		if stage == "dot" && nth == 3 {
			return refusal
		}
		return ""
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(snk.Close)
	a := newAuthor(t, "signed.test")
	policies := map[string]string{
		"_dmarc.signed.test": "v=DMARC1; p=reject", "_dmarc.spf.test": "v=DMARC1; p=reject", "_dmarc.example.test": "v=DMARC1; p=reject",
	}
	records := a.records()
	zone := zones + a.zone() + "spf.test. TXT \"v=spf1 ip4:127.0.0.1 -all\"\n"
	for name, text := range policies {
		records[name] = text
		zone += fmt.Sprintf("%s. TXT %q\n", name, text)
	}
	names := testnet.NewDNS(t, zone)
	_, port, _ := net.SplitHostPort(snk.Addr())
	s := newSite(t, fmt.Sprintf("%s[dns]\nservers = [%q]\n[outbound]\nport = %s\n", localListeners, names.Addr(), port))
	s.addDomain("example.test", "*: you@mailbox.test\n", "app")
	for name, value := range s.dnsRecords() {
		records[name] = value
	}
	c := s.courier(t, s.start(), "smtp")

	text := func(from string) []byte {
		return []byte("From: Somebody <" + from + ">\r\nTo: any@example.test\r\nSubject: x\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\n\r\nHello\r\n")
	}
	signed, _ := a.sign(map[string][]byte{"x": text("a@signed.test")})
	ours := []string{"example.test", "example.test"}
	for n, m := range []struct {
		sender string
		text   []byte
		want   judgement
	}{
		{"bounces@list.test", signed["x"], judgement{"signed.test", append(slices.Clone(ours), "signed.test"), "pass"}},
		{"a@plain.test", text("a@plain.test"), judgement{"plain.test", ours, "none"}},
		{"a@spf.test", text("a@spf.test"), judgement{"example.test", ours, "pass"}}, // refused first, then sent with a From of ours
	} {
		if got := c.send(m.sender, "any@example.test", stuff(m.text)); !strings.HasPrefix(got, "250 2.0.0 Ok: forwarded") {
			t.Fatalf("%s: %s", m.sender, got)
		}
		at := arrived(t, snk, n+1)[n]
		if got := judge(t, at, records); got.From != m.want.From || got.DMARC != m.want.DMARC || !slices.Equal(slices.Sorted(slices.Values(got.Signed)), m.want.Signed) {
			t.Errorf("%s is judged %+v, not %+v:\n%s", m.sender, got, m.want, at.Data)
		}
		if !strings.HasSuffix(at.From, "@example.test") {
			t.Errorf("%s leaves under %s", m.sender, at.From)
		}
	}
	for _, from := range []string{"a@signed.test", "app@example.test", "ceo@mail.example.test"} {
		if got := c.send("forger@list.test", "any@example.test", stuff(text(from))); !strings.HasPrefix(got, "550 5.7.1 ") {
			t.Errorf("forged %s: %s", from, got)
		}
	}
}
