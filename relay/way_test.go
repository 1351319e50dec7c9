package relay

import (
	"strings"
	"testing"

	"relayd/config"
	"relayd/delivery"
	"relayd/queue"
)

// manyWays has a rule of every kind, and passwords as Load would have read them.
func manyWays(t *testing.T) *house {
	h := build(t, `
		[outbound]
		smarthost = "submission://all@smart.test"
		password_file = "pw"
		[outbound.to]
		"direct.test" = { smarthost = "" }
		"special.test" = { smarthost = "smtp://special.example:2525" }
		[outbound.from."news.test"]
		smarthost = "submissions://news@bulk.test"
		password_file = "pw"
		[outbound.from."plain.test"]
		smarthost = ""
		[mailbox]
		lmtp = "tcp:dovecot.test"
	`, exampleTest)
	h.Config.Outbound.Smarthost.Password = "one"
	w := h.Config.Outbound.From["news.test"]
	w.Smarthost.Password = "two"
	h.Config.Outbound.From["news.test"] = w
	return h
}

// TestWays is the table of the ways, and which comes before which.
func TestWays(t *testing.T) {
	h := manyWays(t)
	for name, c := range map[string]struct {
		to, from     string
		via, pipe    []string
		mailbox      bool
		group, route string
	}{
		"a program":                         {to: "a@example.test", pipe: []string{"/bin/x", "y"}, via: []string{"v.test"}, mailbox: true, group: "program /bin/x"},
		"via":                               {to: "a@special.test", via: []string{"v.test", "w.test:26"}, group: "via v.test/w.test:26", route: "v.test w.test:26"},
		"via for a hosted address":          {to: "a@example.test", via: []string{"v.test"}, group: "via v.test", route: "v.test"},
		"a mailbox":                         {to: "a@example.test", from: "x@news.test", mailbox: true, group: "lmtp dovecot.test:24", route: "lmtp dovecot.test:24"},
		"an alias":                          {to: "a@example.test", from: "x@news.test", group: "local"},
		"this host":                         {to: "postmaster@mx.example.test", group: "local"},
		"by recipient":                      {to: "a@special.test", from: "x@news.test", group: "smarthost special.example:2525", route: "special.example:2525"},
		"by recipient, without":             {to: "a@direct.test", from: "x@news.test"},
		"by sender":                         {to: "a@elsewhere.test", from: "x@news.test", group: "smarthost bulk.test:465", route: "bulk.test:465 implicit news:two"},
		"by sender, without":                {to: "a@elsewhere.test", from: "x@plain.test"},
		"for all":                           {to: "a@elsewhere.test", from: "x@other.test", group: "smarthost smart.test:587", route: "smart.test:587 starttls all:one"},
		"a bounce has no sender to go by":   {to: "a@elsewhere.test", group: "smarthost smart.test:587", route: "smart.test:587 starttls all:one"},
		"a domain below is another":         {to: "a@sub.special.test", group: "smarthost smart.test:587", route: "smart.test:587 starttls all:one"},
		"an IP address as the domain":       {to: "a@[192.0.2.1]", group: "smarthost smart.test:587", route: "smart.test:587 starttls all:one"},
		"by recipient in another spelling":  {to: "a@SPECIAL.test", group: "smarthost special.example:2525", route: "special.example:2525"},
		"a hosted sender is no other":       {to: "a@elsewhere.test", from: "x@example.test", group: "smarthost smart.test:587", route: "smart.test:587 starttls all:one"},
		"to a domain, from another at once": {to: "a@direct.test", from: "x@plain.test"},
	} {
		r := &queue.Recipient{Address: mailbox(t, c.to), ReturnPath: mailbox(t, c.from), Via: c.via, Pipe: c.pipe, Mailbox: c.mailbox}
		w := h.way(h.store.Current(), r)
		if w.group != c.group || describe(w.route) != c.route || w.kind == byServer && w.route.Domain != r.Address.Domain {
			t.Errorf("%s: %q by %q", name, w.group, describe(w.route))
		}
	}
}

// describe is a route in a line.
func describe(r delivery.Route) string {
	var words []string
	if r.LMTP {
		words = append(words, "lmtp")
	}
	words = append(words, r.Hosts...)
	if word := map[delivery.TLSMode]string{delivery.StartTLS: "starttls", delivery.Implicit: "implicit"}[r.TLS]; word != "" {
		words = append(words, word)
	}
	if r.User != "" {
		words = append(words, r.User+":"+r.Password)
	}
	return strings.Join(words, " ")
}

func TestFixedWays(t *testing.T) {
	h := manyWays(t)
	var got []string
	for _, f := range FixedWays(h.Config) {
		got = append(got, f.Key+" = "+describe(f.Route))
	}
	want := []string{
		"outbound.smarthost = smart.test:587 starttls all:one",
		`outbound.to."special.test".smarthost = special.example:2525`,
		`outbound.from."news.test".smarthost = bulk.test:465 implicit news:two`,
		"mailbox.lmtp = lmtp dovecot.test:24",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if list := FixedWays(config.Default()); len(list) > 0 {
		t.Error(list)
	}
}

// REQUIRETLS and TLS-Required reach the delivery, and the first outweighs the second.
func TestWhatIsSaidAboutTLS(t *testing.T) {
	h := build(t, "", exampleTest)
	for _, c := range []struct {
		require            bool
		fields             string
		required, optional bool
	}{
		{false, "", false, false},
		{true, "", true, false},
		{false, "TLS-Required: No\r\n", false, true},
		{false, "tls-required:  NO \r\n", false, true},
		{true, "TLS-Required: No\r\n", true, false},
		{false, "TLS-Required: Yes\r\n", false, false},
		{false, "TLS-Required: No\r\nTLS-Required: No\r\n", false, false},
	} {
		h.requireTLS = c.require
		e, _, err := h.deliver(stranger, "s@elsewhere.test", []string{"me@example.test"}, c.fields+hello)
		if err != nil {
			t.Fatal(err)
		}
		m := NewOutbound(h.Options, nil).message(&queue.Work{Envelope: e}, []int{0})
		if m.RequireTLS != c.required || m.TLSOptional != c.optional {
			t.Errorf("REQUIRETLS %v, %q: %v %v", c.require, c.fields, m.RequireTLS, m.TLSOptional)
		}
	}
}
