package relay

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/internal/sink"
)

const listsDNS = `
7.2.0.192.zen.test. A 127.0.0.4
7.2.0.192.zen.test. TXT "https://zen.test/?ip=192.0.2.7"
`

// Who is in a list gets through to postmaster and abuse, and users are asked nothing.
func TestListedClient(t *testing.T) {
	h := build(t, "[filter]\ndnsbl = [\"zen.test\"]\n", exampleTest)
	h.names.Set(listsDNS)
	const refusal = "550 5.7.1 Mail from 192.0.2.7 is not taken, for zen.test lists that address (https://zen.test/?ip=192.0.2.7): " +
		"have it taken off that list, or write to <postmaster@example.test>"
	elsewhere := *stranger
	elsewhere.IP = netip.MustParseAddr("192.0.2.8")
	user := h.user("app@example.test")
	user.IP = stranger.IP
	for _, c := range []struct {
		client *Client
		to     string
		want   string
	}{
		{stranger, "shop@example.test", refusal},
		{stranger, "nobody@strict.test", "550 5.1.1 There is no address <nobody@strict.test> here, please check it for typing errors"},
		{stranger, "Postmaster@example.test", ""},
		{stranger, "abuse@example.test", ""},
		{&elsewhere, "shop@example.test", ""},
		{user, "shop@example.test", ""},
		{user, "x@elsewhere.test", ""},
	} {
		tx := NewTransaction(c.client)
		if c.client == user {
			tx.Sender = mailbox(t, "app@example.test")
		}
		if err := h.Mail(t.Context(), tx); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			err := h.Recipient(t.Context(), tx, Recipient{Address: mailbox(t, c.to)})
			if got := fmt.Sprint(err); (c.want == "") != (err == nil) || err != nil && got != c.want {
				t.Errorf("%s to %s: %s", c.client.IP, c.to, got)
			}
		}
	}
	if n := h.Filter.Counts().DNSBL; n != 1 {
		t.Errorf("%d transactions were refused", n)
	}
}

// serveRspamd runs what stands for rspamd: it does what *action says, and notes what it was told.
func serveRspamd(t *testing.T, action *string, told *[]string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		*told = append(*told, r.Header.Get("IP")+" "+r.Header.Get("Hostname")+" "+strings.Join(r.Header.Values("Rcpt"), ",")+" "+string(text))
		fmt.Fprintf(w, `{"action":%q,"score":7.5}`, *action)
	}))
	t.Cleanup(s.Close)
	return fmt.Sprintf("[filter]\nrspamd = %q\n", s.URL)
}

func TestRspamdIsAskedAboutStrangers(t *testing.T) {
	action, told := "no action", []string(nil)
	h := build(t, serveRspamd(t, &action, &told), exampleTest)
	h.names.Set(strangersDNS + "7.2.0.192.in-addr.arpa. PTR mail.elsewhere.test.\nmail.elsewhere.test. A 192.0.2.7\n")
	text := from("a@elsewhere.test")
	_, body, err := h.deliver(stranger, "a@elsewhere.test", []string{"shop@example.test"}, text)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(body, text) || !strings.Contains(body, "iprev=pass policy.iprev=192.0.2.7;") ||
		!strings.Contains(body, "\r\nReceived: from client.test (mail.elsewhere.test [192.0.2.7])\r\n") {
		t.Errorf("%s", body)
	}
	if want := "192.0.2.7 mail.elsewhere.test <shop@example.test> " + text; len(told) != 1 || told[0] != want {
		t.Errorf("rspamd was told %q", told)
	}
	if want := `rspamd="no action" score=7.5`; !strings.Contains(h.log.String(), want) {
		t.Errorf("no %s in\n%s", want, h.log)
	}

	action, told = "reject", nil
	for _, c := range []struct {
		client       *Client
		sender, to   string
		text, answer string
		asked        int
	}{
		{h.user("app@example.test"), "app@example.test", "x@elsewhere.test", from("app@example.test"), "250", 0},
		{stranger, "a@reject.test", "shop@example.test", from("a@reject.test"), "550 5.7.1 The message fails", 0}, // refused before
		{stranger, "a@elsewhere.test", "abuse@example.test", text, "250", 0},
		{stranger, "a@elsewhere.test", "shop@example.test", text, "550 5.7.1 The message looks like spam", 1},
	} {
		told = nil
		_, r, err := h.offer(c.client, c.sender, []string{c.to}, c.text)
		got := fmt.Sprint(err)
		if err == nil {
			got = r.String()
		}
		if !strings.HasPrefix(got, c.answer) || len(told) != c.asked {
			t.Errorf("%s to %s: %s, asked %d times", c.sender, c.to, got, len(told))
		}
	}

	// What would be marked goes on, but not if it fails a DMARC policy.
	action = "add header"
	if _, body, err = h.deliver(stranger, "a@elsewhere.test", []string{"shop@example.test"}, text); err != nil || !strings.HasSuffix(body, text) {
		t.Errorf("%v\n%s", err, body)
	}
	if _, _, err = h.offer(stranger, "a@quarantine.test", []string{"shop@example.test"}, from("a@quarantine.test")); !strings.HasPrefix(fmt.Sprint(err), "550 5.7.1 The message looks like spam") {
		t.Errorf("p=quarantine: %v", err)
	}
	action = "no action"
	if _, _, err = h.offer(stranger, "a@quarantine.test", []string{"shop@example.test"}, from("a@quarantine.test")); err != nil {
		t.Errorf("p=quarantine: %v", err)
	}
}

// Where SPF, DKIM and DMARC are of no interest, the filters still are.
func TestRspamdWithoutDMARC(t *testing.T) {
	action, told := "reject", []string(nil)
	files := map[string]string{"domains/example.test/aliases": "*: me@mailbox.test\n", "domains/example.test/domain.toml": "dmarc = \"off\"\n"}
	h := build(t, serveRspamd(t, &action, &told), files)
	if _, _, err := h.offer(stranger, "a@elsewhere.test", []string{"shop@example.test"}, from("a@elsewhere.test")); err == nil || len(told) != 1 {
		t.Errorf("%v, %q", err, told)
	}
}

// TestSuspectIsPutOff: what a destination refuses as spam, in the session or later, counts against
// where it came from; what it takes counts for it.
func TestSuspectIsPutOff(t *testing.T) {
	var says sync.Map // by stage
	w := openWorld(t, "", sink.Options{Reply: func(stage, _ string, _ int) string {
		reply, _ := says.LoadOrStore(stage, "")
		return reply.(string)
	}})
	w.names.Set(strangersDNS + "other.test. TXT \"v=spf1 ip4:192.0.2.7 -all\"\n")
	offer := func(sender string) string {
		_, r, err := w.offer(stranger, sender, []string{"shop@example.test"}, from(sender))
		if err != nil {
			return err.Error()
		}
		return r.String()
	}
	says.Store("dot", "550 5.7.1 likely unsolicited mail")
	for n := range 3 {
		if got := offer("a@elsewhere.test"); !strings.HasPrefix(got, "550 5.7.1 The destination refused") {
			t.Errorf("%d: %s", n, got)
		}
	}
	if got := offer("a@elsewhere.test"); !strings.HasPrefix(got, "450 4.7.1 The mailboxes") {
		t.Error(got)
	}
	says.Store("dot", "")
	if got := offer("a@other.test"); !strings.HasPrefix(got, "250 ") {
		t.Error(got)
	}
	if list := w.Filter.Suspects(); len(list) != 1 || list["192.0.2.7/32 elsewhere.test"].Score < 2.9 {
		t.Errorf("%v", list)
	}

	// Greylisting and a full mailbox are no reason.
	says.Store("rcpt", "452 4.2.2 full")
	offer("a@other.test")
	if list := w.Filter.Suspects(); len(list) != 1 {
		t.Errorf("%v", list)
	}
	data, err := w.out.State(w.work)
	if err != nil || !strings.Contains(string(data), `"suspects":{"192.0.2.7/32 elsewhere.test":{"score":`) {
		t.Errorf("%s, %v", data, err)
	}
	again := openWorld(t, "", sink.Options{})
	if err := again.out.Restore(again.work, data); err != nil || len(again.Filter.Suspects()) != 1 {
		t.Errorf("%v, %v", err, again.Filter.Suspects())
	}
}

// A message that is refused as spam at each of several attempts counts once.
func TestSuspectCountsOnce(t *testing.T) {
	w := newAnswering(t, map[string]string{"dot": "421 4.7.0 This message is suspicious due to the very low reputation of the sending domain"})
	const source = "192.0.2.7/32 elsewhere.test"
	w.source = source
	w.send("me", "gmail.test")
	w.source = ""
	waitFor(t, func() bool { return w.queue.Counts().Deferred == 1 })
	for range 3 {
		w.pass(time.Hour)
	}
	if n := len(w.tried()); n < 2 {
		t.Fatalf("tried %d times", n)
	}
	if s := w.Filter.Suspects()[source]; s.Score != 1 {
		t.Errorf("%+v", s)
	}
}
