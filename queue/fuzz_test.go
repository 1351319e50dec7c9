package queue

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"relayd/message"
)

// FuzzSegment has the store open a journal of any bytes: it opens, and what it serves is sane and
// takes changes.
func FuzzSegment(f *testing.F) {
	m := newMemFS()
	s := open(f, m, "q")
	add(f, s, newEnvelope(f, idA, "a@one.test", "b@two.test"), "Subject: hi\r\n\r\nHello\r\n")
	r := s.Get(idA).Recipients[0]
	r.LastReply, r.Attempts = "451 4.7.1 later", 1
	if err := s.Update(idA, map[int]Recipient{0: r, 2: r}, false); err != nil {
		f.Fatal(err)
	}
	good := m.nodes["q/log/0000000001.log"].data[:s.journal.current.end]
	f.Add(slices.Clone(good))
	f.Add(slices.Clone(good[:len(good)-5]))
	f.Add(append(slices.Clone(good[:40]), good[60:]...))
	f.Add([]byte("relayd\x00\x02 of a later version"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMemFS()
		m.nodes["q/log/0000000001.log"] = &node{data: slices.Clone(b)}
		m.nodes["q/log/0000000002.log"] = &node{data: slices.Clone(b)}
		s, err := OpenStore(StoreOptions{Dir: "q", FS: m, Group: byDomain, Log: quiet, segmentSize: 64 << 10})
		if errors.Is(err, ErrNewerStore) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for _, id := range listed(s) {
			e := s.Get(id)
			if err := e.check(); err != nil || e.ID != id {
				t.Fatalf("served: %s, %v", text(e), err)
			}
			r := e.Recipients[0]
			r.State = Waiting
			if err := s.Update(id, map[int]Recipient{0: r}, true); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// FuzzDSN: whatever others have written, a DSN has the form and the fields that it should have.
func FuzzDSN(f *testing.F) {
	f.Add("QQ314159", "rfc822;a@one.test", "550 5.1.1 No such user", "mx.one.test", "<1@example.org>")
	f.Add("x\r\nBcc: evil@else.test", "rfc822;a\r\n\r\nFinal-Recipient: x", "550 5.1.1\r\n\r\n--=_0000000000000000--", "mx\nX: y", "<a\tb@c>")
	f.Add("\xff\x00", "utf-8;\u2028ü", strings.Repeat("ü", 2000), "\u0085", "<"+strings.Repeat("x", 2000)+">")
	f.Add("", ";", "550 5.1.1.1 x", "", "<<>>")
	f.Fuzz(func(t *testing.T, envelopeID, orcpt, lastReply, lastHost, messageID string) {
		e := newEnvelope(t, idA, "a@one.test", "jane.doe@dest.test")
		e.EnvelopeID = envelopeID
		about := []*Recipient{&e.Recipients[0], &e.Recipients[1]}
		for _, r := range about {
			r.Original, r.LastReply, r.LastHost = orcpt, lastReply, lastHost
		}
		about[1].Alias = addr(t, "shop@example.org")
		header, err := message.ParseHeader([]byte("Message-ID: " + messageID + "\r\n"))
		if err != nil {
			return
		}
		for _, action := range []string{actionFailed, actionDelayed, actionRelayed} {
			now := time.Unix(0, 0)
			d := &dsn{about: e, recipients: about, action: action, id: NewID(now), now: now, hostname: "mx.example.org", domain: "example.org",
				header: header, original: []byte("Subject: hi\r\n")}
			r, err := readReport(string(d.format()))
			if err != nil {
				t.Fatalf("%v\n%q", err, d.format())
			}
			if len(r.kinds) != 3 || r.given != "Subject: hi\r\n" || len(r.each) != 2 {
				t.Errorf("parts %q, given back %q, about %d", r.kinds, r.given, len(r.each))
			}
			only(t, r.header, "From", "To", "Subject", "Date", "Message-Id", "In-Reply-To", "Auto-Submitted", "Mime-Version", "Content-Type", "Content-Transfer-Encoding")
			only(t, r.about, "Reporting-Mta", "Original-Envelope-Id", "Arrival-Date")
			for _, h := range r.each {
				only(t, h, "Original-Recipient", "Final-Recipient", "Action", "Status", "Remote-Mta", "Diagnostic-Code", "Will-Retry-Until")
			}
			for _, part := range []string{r.people, r.each[0].Get("Diagnostic-Code"), r.each[1].Get("Diagnostic-Code")} {
				if strings.Contains(strings.ToLower(part), "jane.doe@dest.test") {
					t.Errorf("the address behind the alias stands in %q", part)
				}
			}
		}
	})
}

// only complains of fields that are not among names, or stand twice.
func only(t *testing.T, h map[string][]string, names ...string) {
	t.Helper()
	for name := range maps.Keys(h) {
		if !slices.Contains(names, name) || len(h[name]) != 1 {
			t.Errorf("field %s: %q", name, h[name])
		}
	}
}
