//go:build interop

package interop

import (
	"bytes"
	"fmt"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"relayd/internal/sink"
)

// readCorpus returns our own messages and every one of the test data, by file name and as it lies
// there. Where that folder is missing, our own have to do.
func readCorpus(t *testing.T) map[string][]byte {
	t.Helper()
	messages := map[string][]byte{}
	for name, text := range ownMail {
		messages[name] = []byte(text)
	}
	dir := os.Getenv("RELAYD_CORPUS")
	if dir == "" {
		dir = filepath.Join(root, "..", "shared", "corpus")
	}
	files, err := os.ReadDir(filepath.Join(dir, "mail"))
	if err != nil {
		t.Logf("SKIP the corpus of mail: %v (RELAYD_CORPUS may name its folder)", err)
	}
	for _, f := range files {
		text, err := os.ReadFile(filepath.Join(dir, "mail", f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		messages[f.Name()] = text
	}
	return messages
}

// crlf gives a message the line ends that it has on the wire, and one at its end.
func crlf(text []byte) []byte {
	text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
	text = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	if !bytes.HasSuffix(text, []byte("\r\n")) {
		text = append(text, "\r\n"...)
	}
	return text
}

// A tally counts what became of messages.
type tally struct {
	sent, unsigned, arrived, verified, ours int
	refused                                 map[string]int // by reply
}

func (c *tally) String() string {
	s := fmt.Sprintf("sent %d, arrived unchanged %d; author's signature verified %d, python3-dkim could not sign %d; both of ours verified %d",
		c.sent, c.arrived, c.verified, c.unsigned, c.ours)
	for reply, n := range c.refused {
		s += fmt.Sprintf("\n  refused %d: %s", n, reply)
	}
	return s
}

// A courier sends messages one after the other, over a new connection where the last was closed.
type courier struct {
	t    *testing.T
	open func() *dialog
	conn *dialog
}

// send sends a message and returns the reply.
func (c *courier) send(from, to string, raw []byte) string {
	c.t.Helper()
	if c.conn == nil {
		c.conn = c.open()
	}
	c.conn.say("MAIL FROM:<"+from+">", "250 ")
	c.conn.say("RCPT TO:<"+to+">", "250 ")
	c.conn.say("DATA", "354 ")
	c.conn.send(raw)
	got := c.conn.reply()
	if strings.HasPrefix(got, "550 5.6.0") { // nothing after such a message can be trusted
		c.conn.close()
		c.conn = nil
	}
	return got
}

func (s *site) courier(t *testing.T, d *daemon, service string) *courier {
	return &courier{t: t, open: func() *dialog {
		if service == "submissions" {
			return s.submit(d, service, "app@example.test")
		}
		c := dial(t, d.address(service))
		c.say("EHLO client.test", "250 ")
		return c
	}}
}

// exchange sends all messages and compares what arrives with what was sent: it must end with the
// very same bytes. to makes the recipient of a message from a number; the sink must see that local
// part. It returns what arrived, by file name.
func exchange(t *testing.T, c *courier, snk *sink.Sink, from, to string, messages map[string][]byte, count *tally) map[string][]byte {
	t.Helper()
	before := snk.Count()
	names := map[string]string{} // file name by local part
	for i, name := range sortedKeys(messages) {
		local := fmt.Sprintf("c%03d", i)
		count.sent++
		got := c.send(from, local+"@"+to, stuff(messages[name]))
		if !strings.HasPrefix(got, "250 2.0.0 ") {
			count.refused[strings.TrimSpace(got)]++
			if !(strings.HasPrefix(got, "554 5.4.6 ") && hops(messages[name]) > 50) {
				t.Errorf("%s: %s", name, strings.TrimSpace(got))
			}
			continue
		}
		names[local] = name
	}
	received := map[string][]byte{}
	for _, m := range arrived(t, snk, before+len(names))[before:] {
		local, _, _ := strings.Cut(m.Rcpts[0], "@")
		name := names[local]
		received[name] = m.Data
		if !bytes.HasSuffix(m.Data, messages[name]) {
			t.Errorf("%s arrives changed:\n%.2000q", name, m.Data)
			continue
		}
		if front := m.Data[:len(m.Data)-len(messages[name])]; !wholeFields.Match(front) {
			t.Errorf("%s: more than whole fields in front: %q", name, front)
		}
		count.arrived++
	}
	return received
}

var wholeFields = regexp.MustCompile(`^([A-Za-z-]+:[^\r\n]*\r\n([ \t][^\r\n]*\r\n)*)+$`)

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// hops counts the Received fields of a message.
func hops(text []byte) int {
	head, _, _ := bytes.Cut(text, []byte("\r\n\r\n"))
	return len(regexp.MustCompile(`(?im)^Received[ \t]*:`).FindAll(head, -1))
}

// countVerified checks, in all messages that python3-dkim can read and so could sign, that the
// author's signature and both of ours verify. Ours may be missing where it cannot be said who the
// author is: such a message may claim to be from a hosted domain.
func countVerified(t *testing.T, results map[string][]signature, signed map[string]bool, messages map[string][]byte, count *tally) {
	t.Helper()
	for _, name := range sortedKeys(results) {
		list := results[name]
		if !signed[name] {
			count.unsigned++
			continue
		}
		found := bySelector(list)
		if s := found[authorSelector]; !s.OK {
			t.Errorf("%s: the author's signature does not verify: %v", name, list)
			continue
		}
		count.verified++
		r, rsa := found["r1"]
		e, ed25519 := found["e1"]
		switch {
		case r.OK && e.OK:
			count.ours++
		case rsa || ed25519:
			t.Errorf("%s: our signatures do not verify: %v", name, list)
		case hasOneAuthor(messages[name]):
			t.Errorf("%s: we did not sign: %v", name, list)
		}
	}
}

// hasOneAuthor reports whether Go's parser finds exactly one From field with exactly one address.
func hasOneAuthor(text []byte) bool {
	m, err := mail.ReadMessage(bytes.NewReader(text))
	if err != nil || len(m.Header["From"]) != 1 {
		return false
	}
	list, err := m.Header.AddressList("From")
	return err == nil && len(list) == 1
}

func TestCorpusForwarded(t *testing.T) {
	corpus := readCorpus(t)
	s, snk := newWorld(t, sink.Options{}, "")
	s.write("domains/example.test/aliases", "*: *@mailbox.test\n")
	a := newAuthor(t, "author.test")
	for name := range corpus {
		corpus[name] = crlf(corpus[name])
	}
	messages, signed := a.sign(corpus)
	d := s.start()
	count := &tally{refused: map[string]int{}}
	received := exchange(t, s.courier(t, d, "smtp"), snk, "someone@author.test", "example.test", messages, count)
	countVerified(t, verifyAll(t, received, a.records(), s.dnsRecords()), signed, messages, count)
	t.Log("on port 25:", count)
}

func TestCorpusSubmitted(t *testing.T) {
	corpus := readCorpus(t)
	s, snk := newWorld(t, sink.Options{}, "")
	a := newAuthor(t, "example.test")
	for name, text := range corpus {
		corpus[name] = withFrom(crlf(text), "app@example.test")
	}
	messages, signed := a.sign(corpus)
	d := s.start()
	count := &tally{refused: map[string]int{}}
	received := exchange(t, s.courier(t, d, "submissions"), snk, "app@example.test", "elsewhere.test", messages, count)
	countVerified(t, verifyAll(t, received, a.records(), s.dnsRecords()), signed, messages, count)
	t.Log("submitted:", count)
}

// fromField is a From field with its folded lines, in a header that a line end comes before.
var fromField = regexp.MustCompile(`(?i)\r\nFrom[ \t]*:[^\r\n]*(\r\n[ \t][^\r\n]*)*`)

// withFrom takes all From fields out of a message's header and puts one in front.
func withFrom(text []byte, from string) []byte {
	head, body := text, []byte(nil)
	if i := bytes.Index(text, []byte("\r\n\r\n")); i >= 0 && !bytes.HasPrefix(text, []byte("\r\n")) {
		head, body = text[:i], text[i:]
	} else if bytes.HasPrefix(text, []byte("\r\n")) {
		head, body = nil, text
	} else {
		head, body = bytes.TrimSuffix(text, []byte("\r\n")), []byte("\r\n")
	}
	head = fromField.ReplaceAll(append([]byte("\r\n"), head...), nil)
	head = bytes.TrimPrefix(head, []byte("\r\n"))
	return slices.Concat([]byte("From: "+from+"\r\nX-First: a line that begins with white space belongs to this\r\n"), head, body)
}

// TestCorpusWithItsOwnFrom: nobody submits in the name of somebody else.
func TestCorpusWithItsOwnFrom(t *testing.T) {
	corpus := readCorpus(t)
	s, snk := newWorld(t, sink.Options{}, "")
	d := s.start()
	c := s.courier(t, d, "submissions")
	named, other := 0, map[string]int{}
	address := regexp.MustCompile(`may not send as <([^>]*)>`)
	for _, name := range sortedKeys(corpus) {
		text := crlf(corpus[name])
		got := c.send("app@example.test", "someone@elsewhere.test", stuff(text))
		looping := strings.HasPrefix(got, "554 5.4.6 ") && hops(text) > 50
		if !strings.HasPrefix(got, "550 5.7.1 ") && !looping {
			t.Errorf("%s: %s", name, got)
		}
		if refused := address.FindStringSubmatch(got); refused != nil {
			named++
			if !bytes.Contains(bytes.ToLower(text), []byte(strings.ToLower(refused[1]))) {
				t.Errorf("%s: %s: the message does not have this address", name, strings.TrimSpace(got))
			}
		} else if hasOneAuthor(text) && !looping {
			t.Errorf("%s: %s: the address is not named", name, strings.TrimSpace(got))
		} else {
			other[strings.TrimSpace(got)]++
		}
	}
	t.Logf("refused 550 5.7.1: %d naming the address", named)
	for reply, n := range other {
		t.Logf("refused %d: %s", n, reply)
	}
	if snk.Count() != 0 {
		t.Errorf("%d arrived", snk.Count())
	}
}

// TestCorpusWithBareLineEnds: files that lie there with LF are sent as they are.
func TestCorpusWithBareLineEnds(t *testing.T) {
	corpus := readCorpus(t)
	s, snk := newWorld(t, sink.Options{}, "")
	d := s.start()
	c := s.courier(t, d, "smtp")
	refused, sent := 0, 0
	for _, name := range sortedKeys(corpus) {
		text := corpus[name]
		if strings.HasPrefix(name, "own-") {
			text = bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n"))
		}
		if !bytes.Contains(bytes.ReplaceAll(text, []byte("\r\n"), nil), []byte("\n")) {
			continue
		}
		sent++
		got := c.send("someone@author.test", "x@example.test", append(slices.Clone(text), "\r\n.\r\n"...))
		if !strings.HasPrefix(got, "550 5.6.0 ") {
			t.Errorf("%s: %s", name, got)
			continue
		}
		refused++
	}
	t.Logf("with bare LF: sent %d, refused 550 5.6.0: %d", sent, refused)
	if snk.Count() != 0 {
		t.Errorf("%d arrived", snk.Count())
	}
}

// TestHeaderLimits: what no DKIM verifier would survive is refused for good, with the reason.
func TestHeaderLimits(t *testing.T) {
	s, snk := newWorld(t, sink.Options{}, "[limits]\nmessage_size = \"1MB\"\n")
	d := s.start()
	c := s.courier(t, d, "smtp")
	body := "From: a@author.test\r\n\r\ntext\r\n"
	for _, m := range []struct{ name, text, want, reason string }{
		{"large header", "X-Large: " + strings.Repeat("x", 900) + "\r\n", "552 5.3.4", "256 KiB"},
		{"many fields", "X-Many: x\r\n", "552 5.3.4", "1000"},
		{"large message", "", "552 5.3.4", ""},
	} {
		text := body
		switch m.name {
		case "large header":
			text = strings.Repeat(m.text, 300) + body
		case "many fields":
			text = strings.Repeat(m.text, 1001) + body
		case "large message":
			text = body + strings.Repeat(strings.Repeat("x", 98)+"\r\n", 11_000)
		}
		got := c.send("someone@author.test", "x@example.test", stuff([]byte(text)))
		t.Logf("%s: %s", m.name, strings.TrimSpace(got))
		if !strings.HasPrefix(got, m.want) || !strings.Contains(got, m.reason) {
			t.Errorf("%s: %s", m.name, got)
		}
	}
	if got := c.send("someone@author.test", "x@example.test", stuff([]byte(strings.Repeat("X-Many: x\r\n", 999)+body))); !strings.HasPrefix(got, "250 ") {
		t.Errorf("a header of 1000 fields: %s", got)
	}
	arrived(t, snk, 1)
}
