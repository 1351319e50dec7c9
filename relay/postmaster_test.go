package relay

import (
	"errors"
	"io"
	"strings"
	"testing"

	"relayd/aliases"
	"relayd/queue"
)

// TestThePostmasterIsWrittenTo: a mail of relayd's own is one like any other, but with no way back.
func TestThePostmasterIsWrittenTo(t *testing.T) {
	h := build(t, "postmaster = \"me@elsewhere.test\"\n", nil)
	if err := h.Notify("The certificate runs out", "One line.\n\n.Another\n"); err != nil {
		t.Fatal(err)
	}
	var found *queue.Envelope
	h.queue.List(func(e *queue.Envelope) bool { found = e; return false })
	if found == nil || !found.Sender.IsNull() || found.Recipients[0].Address.String() != "me@elsewhere.test" {
		t.Fatalf("%+v", found)
	}
	body, err := h.queue.Body(found.ID)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	text, err := io.ReadAll(body)
	if err != nil || !strings.HasSuffix(string(text), "\r\n\r\nOne line.\r\n\r\n.Another\r\n") ||
		!strings.Contains(string(text), "From: relayd <mailer-daemon@mx.example.test>\r\nTo: <me@elsewhere.test>\r\nSubject: The certificate runs out\r\n") {
		t.Errorf("%s, %v", text, err)
	}
}

func TestWithoutAPostmasterTheLogHasToDo(t *testing.T) {
	h := build(t, "", nil)
	if err := h.Notify("The certificate runs out", "soon"); err != nil || !strings.Contains(h.log.String(), "The certificate runs out") {
		t.Errorf("%v, %s", err, h.log)
	}
	h.queue.List(func(e *queue.Envelope) bool { t.Errorf("%+v", e); return false })
}

func TestResolveIsAsForMailOfStrangers(t *testing.T) {
	for _, tt := range []struct {
		postmaster, address, want string
		admin                     bool
	}{
		{"", "only@strict.test", "x@mailbox.test", false},
		{"", "abuse@strict.test", "", false},
		{"ops@elsewhere.test", "Abuse@strict.test", "ops@elsewhere.test", true},
		{"ops@elsewhere.test", "other@strict.test", "", false},
		{"me@example.test", "postmaster@strict.test", "me@mailbox.test", true},
		{"none@strict.test", "postmaster@strict.test", "", true},
	} {
		h := build(t, "postmaster = \""+tt.postmaster+"\"\n", exampleTest)
		res, admin, err := Resolve(h.Config, h.store.Current(), mailbox(t, tt.address))
		if admin != tt.admin || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, aliases.ErrNoSuchAddress) {
			t.Errorf("%+v: %v, %v", tt, admin, err)
		}
		if err == nil && (len(res.Targets) != 1 || res.Targets[0].String() != tt.want) {
			t.Errorf("%+v: %v", tt, res.Targets)
		}
	}
}
