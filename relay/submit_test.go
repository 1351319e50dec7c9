package relay

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"relayd/address"
	"relayd/delivery"
	"relayd/follow"
	"relayd/message"
	"relayd/queue"
	"relayd/reply"
)

func TestSubmit(t *testing.T) {
	h := build(t, "[limits]\nrecipients = 2\n", exampleTest)
	only := func(as address.Address) error {
		if as.Local == "web" {
			return nil
		}
		return reply.New(550, "5.7.1", "Not <%s>", as)
	}
	for _, c := range []struct {
		name, user, sender, from string
		to                       []string
		rule                     func(address.Address) error
		want                     string // "" is that it is taken
	}{
		{name: "as oneself", user: "app@example.test", sender: "app@example.test", from: "app@example.test", to: []string{"a@mailbox.test"}},
		{name: "as another", user: "app@example.test", sender: "app@example.test", from: "second@example.test", to: []string{"a@mailbox.test"}, want: "550 5.7.1 <app@example.test> may not send as"},
		{name: "by the rule", user: "bob@example.test", sender: "web@example.test", from: "web@strict.test", to: []string{"me@example.test"}, rule: only},
		{name: "the rule is strict", user: "bob@example.test", sender: "bob@example.test", from: "web@example.test", to: []string{"a@mailbox.test"}, rule: only, want: "550 5.7.1 Not <bob@example.test>"},
		{name: "foreign for all rules", user: "bob@example.test", sender: "web@example.test", from: "web@mailbox.test", to: []string{"a@mailbox.test"}, rule: only, want: "550 5.7.1 <web@mailbox.test> cannot be sent from (From)"},
		{name: "broken for all rules", user: "bob@example.test", sender: "web@broken.test", from: "web@broken.test", to: []string{"a@mailbox.test"}, rule: only, want: "451 4.3.0"},
		{name: "a bounce for all rules", user: "bob@example.test", sender: "SRS0=x@example.test", from: "web@example.test", to: []string{"a@mailbox.test"}, rule: only, want: "550 5.7.1 <SRS0=x@example.test>"},
		{name: "not hosted", user: "a@mailbox.test", sender: "a@mailbox.test", from: "a@mailbox.test", to: []string{"a@mailbox.test"}, want: "550 5.7.1 mailbox.test is not hosted here"},
		{name: "to nobody", user: "app@example.test", sender: "app@example.test", from: "app@example.test", want: "554 5.5.1"},
		{name: "to too many", user: "app@example.test", sender: "app@example.test", from: "app@example.test", to: []string{"a@b.test", "b@b.test", "c@b.test"}, want: "550 5.5.3"},
		{name: "to one who is not there", user: "app@example.test", sender: "app@example.test", from: "app@example.test", to: []string{"a@b.test", "nobody@strict.test"}, want: "550 5.1.1"},
	} {
		s := &Submission{User: mailbox(t, c.user), Rule: c.rule, Sender: mailbox(t, c.sender)}
		for _, to := range c.to {
			s.Recipients = append(s.Recipients, Recipient{Address: mailbox(t, to)})
		}
		m, err := message.Read(strings.NewReader("From: "+c.from+"\r\n\r\nhi\r\n"), t.TempDir(), 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		tx := s.Begin()
		err = h.Submit(context.Background(), s, tx, m)
		e, lost := h.queue.Get(tx.ID)
		if c.want != "" {
			if err == nil || !strings.HasPrefix(err.Error(), c.want) || lost == nil {
				t.Errorf("%s: %v, %v", c.name, err, e)
			}
			continue
		}
		if err != nil || lost != nil || e.User != s.User || e.Sender != s.Sender || !e.Authentic {
			t.Errorf("%s: %v %v %+v", c.name, err, lost, e)
		}
		if got := Signatures(m); c.from == "app@example.test" && !slices.Equal(got, []follow.Signature{{Domain: "example.test", Selector: "s1", Algorithm: "ed25519-sha256"}}) {
			t.Errorf("%s: signed %v", c.name, got)
		}
	}
	if log := h.log.String(); !strings.Contains(log, "client=local") || !strings.Contains(log, `msg=refused`) {
		t.Errorf("the log:\n%s", log)
	}
}

// TestFollowed: what the queue and the client tell reaches the follower, with how many are left.
func TestFollowed(t *testing.T) {
	book := &follow.Book{}
	opt := Options{Follow: book, Now: func() time.Time { return noon }}
	events, stop := book.Follow("AAAAAAAA")
	defer stop()
	out := NewOutbound(opt, nil)
	steps := out.withSteps(context.Background(), "AAAAAAAA")
	for _, s := range []delivery.Step{
		{Host: "mx", Err: reply.New(451, "4.4.1", "Gone")}, {Host: "mx", IPv6: true}, {Host: "mx", Ready: true, TLS: delivery.TLS{Version: "TLS1.3", By: delivery.ByDANE}},
		{Host: "mx", Kept: true, TLS: delivery.TLS{Version: "TLS1.3", By: delivery.ByNothing}},
	} {
		out.tellStep("AAAAAAAA", s)
	}
	if out.withSteps(context.Background(), "BBBBBBBB") != context.Background() || steps == context.Background() {
		t.Error("the wrong message is followed")
	}
	e := &queue.Envelope{ID: "AAAAAAAA", Recipients: []queue.Recipient{
		{Address: mailbox(t, "a@x.test"), Status: queue.Status{State: queue.Delivered, LastReply: "250 Ok"}},
		{Address: mailbox(t, "b@x.test"), Status: queue.Status{State: queue.Waiting, Next: noon.Add(time.Hour), LastReply: "451 later"}},
		{Address: mailbox(t, "c@x.test"), Status: queue.Status{State: queue.Failed, LastReply: "550 no"}},
		{Address: mailbox(t, "d@x.test"), Status: queue.Status{State: queue.Held, LastReply: "451 held"}},
		{Address: mailbox(t, "e@x.test"), Status: queue.Status{State: queue.Waiting, Next: noon}},
	}}
	said := queue.Outcome{Reply: reply.New(250, "", "x"), Host: "mx"}
	opt.Settled(e, []int{0, 1, 2, 3, 4}, []queue.Outcome{said, said, said, said, {Until: noon}})
	var got []string
	for range len(events) {
		ev := <-events
		got = append(got, strings.Join([]string{string(ev.What), ev.Host, ev.Family, ev.TLS, ev.Verified, ev.Recipient, ev.Reply, string(rune('0' + ev.Left))}, "|"))
	}
	want := []string{
		"unreachable|mx|IPv4||||451 4.4.1 Gone|0", "connected|mx|IPv6|||||0", "ready|mx|IPv4|TLS1.3|DANE|||0", "kept|mx|IPv4|TLS1.3||||0",
		"delivered|mx||||a@x.test|250 Ok|7", "deferred|mx||||b@x.test|451 later|6", "failed|mx||||c@x.test|550 no|5", "held|mx||||d@x.test|451 held|4", "waits|||||e@x.test||3",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
