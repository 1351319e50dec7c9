//go:build interop

package interop

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"relayd/internal/sink"
)

// queueFirst has mail answered when it is in the queue, not when it was delivered.
const queueFirst = "[forward]\nanswer_within = \"0s\"\n"

// TestSyncedBeforeAnswer: what the kernel is asked for while a message is taken in. Its bytes are
// written, then synced, and only then goes the 250 out.
func TestSyncedBeforeAnswer(t *testing.T) {
	s, snk := newWorld(t, sink.Options{}, queueFirst)
	trace := s.path("trace")
	// With -D the tracer is nobody's parent: the process that is started is relayd itself.
	d := s.launch(s.command(peer(t, "strace"), "-D", "-f", "-y", "-ttt", "-s", "300", "-o", trace,
		"-e", "trace=openat,pwrite64,pwritev,write,writev,fdatasync,fsync,renameat", program(t, "relayd"), "-c", s.config()))
	d.awaitUp()
	c := dial(t, d.address("smtp"))
	c.say("EHLO client.test", "250 ")
	ids := map[bool]string{}
	for _, large := range []bool{false, true} {
		ids[large] = queuedID(t, offer(c, strangersMail("synced", map[bool]int{false: 2000, true: 200_000}[large])))
	}
	arrived(t, snk, 2)
	d.stop() // and the tracer with it
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	calls := parseTrace(string(text))
	for large, id := range ids {
		p, err := durable(calls, id, large)
		if err != nil {
			t.Errorf("%v; the trace:\n%.5000s", err, text)
			continue
		}
		t.Logf("%s, %s:\n%s", map[bool]string{false: "2 KB", true: "200 KB"}[large], id, p)
		if _, err := durable(without(calls, "fdatasync"), id, large); err == nil {
			t.Error("nobody would notice if there were no sync")
		}
	}
}

// without is a trace without the calls of one name.
func without(calls []*call, name string) (rest []*call) {
	for _, c := range calls {
		if c.name != name {
			rest = append(rest, c)
		}
	}
	return rest
}

// strangersMail is a message of about so many octets, different for every name.
func strangersMail(name string, size int) []byte {
	return mailFrom("stranger@elsewhere.test", name, size)
}

// mailFrom is strangersMail from somebody else.
func mailFrom(from, name string, size int) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "From: "+from+"\r\nSubject: %s\r\n\r\n", name)
	for line := 0; b.Len() < size; line++ {
		fmt.Fprintf(&b, "%s %d %s\r\n", name, line, strings.Repeat("x", 50))
	}
	return []byte(b.String())
}

// offer sends a message from a stranger to example.test and returns the last reply: that to the
// message, or to the command that was refused.
func offer(c *dialog, text []byte) string {
	c.t.Helper()
	return c.transaction("stranger@elsewhere.test", "box@example.test", text)
}

// queuedID is the queue ID in a reply of 250.
func queuedID(t testing.TB, got string) string {
	t.Helper()
	id, ok := strings.CutPrefix(strings.TrimSpace(got), "250 2.0.0 Ok: queued as ")
	if !ok {
		t.Fatalf("the answer is %s", got)
	}
	return id
}
