package queue

import (
	"context"
	"errors"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/reply"
)

func TestDSNForFailure(t *testing.T) {
	e := newEnvelope(t, idA, "a@one.test", "b@one.test")
	e.Received = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	e.EnvelopeID, e.Recipients[0].Original = "QQ314159", "RFC822;A+b@one.test"
	d := one(t, e, original, gone)
	check(t, d.header, map[string]string{
		"From": "Mail Delivery System <MAILER-DAEMON@example.org>", "To": "<me@example.org>", "Subject": "Your message could not be delivered",
		"In-Reply-To": "<1@example.org>", "Auto-Submitted": "auto-replied", "Mime-Version": "1.0", "Dkim-Signature": "d=example.org",
		"Content-Transfer-Encoding": "",
	})
	if !strings.HasPrefix(d.raw, "DKIM-Signature: ") {
		t.Error("the signature is not in front")
	}
	if _, err := d.header.Date(); err != nil || d.header.Get("Message-ID") == "" {
		t.Errorf("Date: %v, Message-ID %q", err, d.header.Get("Message-ID"))
	}
	check(t, d.about, map[string]string{
		"Reporting-MTA": "dns; mx.example.org", "Original-Envelope-Id": "QQ314159", "Arrival-Date": "Sat, 1 Jan 2000 00:00:00 +0000",
	})
	if len(d.each) != 2 {
		t.Fatalf("about %d recipients", len(d.each))
	}
	check(t, d.each[0], map[string]string{
		"Original-Recipient": "rfc822;A+b@one.test", "Final-Recipient": "rfc822; a@one.test", "Action": "failed", "Status": "5.1.1",
		"Remote-MTA": "dns; mx.one.test", "Diagnostic-Code": "smtp; 550 5.1.1 No such user", "Will-Retry-Until": "",
	})
	check(t, d.each[1], map[string]string{"Original-Recipient": "", "Final-Recipient": "rfc822; b@one.test"})
	if !slices.Equal(d.kinds, []string{"text/plain; charset=utf-8", "message/delivery-status", "text/rfc822-headers"}) {
		t.Errorf("parts: %q", d.kinds)
	}
	if want := original[:strings.Index(original, "\r\n\r\n")+2]; d.given != want {
		t.Errorf("given back: %q, want %q", d.given, want)
	}
	if !strings.Contains(d.people, "    To: <a@one.test>\r\n    The answer was: 550 5.1.1 No such user\r\n") || !strings.Contains(d.people, idA) {
		t.Errorf("for people:\n%s", d.people)
	}
}

func TestWhoGetsADSN(t *testing.T) {
	handed := Outcome{State: Delivered, Reply: taken.Reply, Reported: true}
	for name, test := range map[string]struct {
		change  func(e *Envelope)
		header  string
		outcome Outcome
		want    int
	}{
		"a submitter":           {outcome: gone, want: 1},
		"nobody for success":    {outcome: taken},
		"nobody while it waits": {outcome: later},
		"a sender known to be real": {outcome: gone, want: 1, change: func(e *Envelope) {
			e.Sender, e.User.Local, e.User.Domain = addr(t, "you@else.test"), "", ""
		}},
		"a sender not known to be real": {outcome: gone, change: func(e *Envelope) { e.Authentic = false }},
		"NOTIFY=NEVER":                  {outcome: gone, change: func(e *Envelope) { e.Recipients[0].Notify = []string{"NEVER"} }},
		"NOTIFY=SUCCESS failed":         {outcome: gone, change: func(e *Envelope) { e.Recipients[0].Notify = []string{"SUCCESS"} }},
		"NOTIFY=SUCCESS":                {outcome: taken, want: 1, change: func(e *Envelope) { e.Recipients[0].Notify = []string{"SUCCESS", "FAILURE"} }},
		"NOTIFY=SUCCESS handed on":      {outcome: handed, change: func(e *Envelope) { e.Recipients[0].Notify = []string{"SUCCESS"} }},
		"NOTIFY=FAILURE":                {outcome: gone, want: 1, change: func(e *Envelope) { e.Recipients[0].Notify = []string{"FAILURE"} }},
		"NOTIFY=DELAY":                  {outcome: gone, change: func(e *Envelope) { e.Recipients[0].Notify = []string{"DELAY"} }},
		"a person":                      {outcome: gone, want: 1, header: "Auto-Submitted: No (really)\r\n"},
		"a program":                     {outcome: gone, header: "Auto-Submitted: auto-generated; x=y\r\n"},
		"an answering machine":          {outcome: gone, header: "auto-submitted:\r\n\tAuto-Replied\r\n"},
		"a list":                        {outcome: gone, header: "List-ID: <x.y.z>\r\n"},
		"bulk":                          {outcome: gone, header: "Precedence: Bulk\r\n"},
		"a report":                      {outcome: gone, header: "Content-Type: Multipart/Report; report-type=disposition-notification; boundary=b\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnvelope(t, idA, "a@one.test")
			if test.change != nil {
				test.change(e)
			}
			if n := len(reports(t, e, test.header+original, test.outcome)); n != test.want {
				t.Errorf("%d DSNs, want %d", n, test.want)
			}
		})
	}
}

// TestDSNAboutADSNNever: a DSN that cannot be delivered is dropped.
func TestDSNAboutADSNNever(t *testing.T) {
	bubble(t, func(t *testing.T) {
		r := newRig(t, nil)
		tries := 0
		r.deliver = &deliverer{group: byDomain, deliver: func(_ context.Context, w *Work) []Outcome {
			tries++
			return all(w, gone)
		}}
		r.start(newEnvelope(t, idA, "a@one.test"))
		time.Sleep(day)
		synctest.Wait()
		if !r.empty() || tries != 2 {
			t.Errorf("%d attempts, left: %v", tries, listed(r.store))
		}
		r.stop()
	})
}

// TestAliasIsToldOnce: who wrote to an alias of several mailboxes hears of it once, and never
// learns what is behind it.
func TestAliasIsToldOnce(t *testing.T) {
	secrets := []string{"jane.private", "secret.test", "hidden", "other.test"}
	for _, action := range []string{"failed", "delayed", "relayed"} {
		t.Run(action, func(t *testing.T) {
			e := newEnvelope(t, idA, "jane.private@secret.test", "jane.private@secret.test", "hidden@other.test")
			for i := range e.Recipients {
				r := &e.Recipients[i]
				r.Alias, r.Fields = addr(t, "shop@example.org"), "X-Forwarded-To: "+r.Address.String()+"\r\n"
				r.Notify = []string{"SUCCESS", "FAILURE", "DELAY"}
			}
			o := Outcome{State: map[string]State{"failed": Failed, "delayed": Waiting, "relayed": Delivered}[action], Host: "mx7.secret.test"}
			o.Reply = reply.New(550, "5.1.1", "<Jane.Private@SECRET.test>: jane.private unknown at mx7.secret.test; ask hidden%%other.test or other.test")
			bubble(t, func(t *testing.T) {
				e.Received = time.Now()
				for i := range e.Recipients {
					e.Recipients[i].Next = e.Received
				}
				r := newRig(t, func(_ context.Context, w *Work) []Outcome { return all(w, o) })
				r.run()
				if err := r.Queue.Add(e, strings.NewReader(original)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(day)
				synctest.Wait()
				r.stop()
				if len(r.dsns) != 1 {
					t.Fatalf("%d DSNs", len(r.dsns))
				}
				d, err := readReport(r.dsns[0])
				if err != nil {
					t.Fatal(err)
				}
				if len(d.each) != 1 {
					t.Errorf("it is about %d recipients", len(d.each))
				}
				check(t, d.each[0], map[string]string{"Final-Recipient": "rfc822; shop@example.org", "Action": action, "Remote-MTA": ""})
				for _, s := range secrets {
					if strings.Contains(strings.ToLower(d.raw), s) {
						t.Errorf("%q stands in it:\n%s", s, d.raw)
					}
				}
			})
		})
	}
}

func TestDelayNotice(t *testing.T) {
	for user, want := range map[string]int{"me@example.org": 1, "": 0} {
		bubble(t, func(t *testing.T) {
			r := newRig(t, func(_ context.Context, w *Work) []Outcome { return all(w, later) })
			e := newEnvelope(t, idA, "a@one.test")
			if user == "" {
				e.User.Local, e.User.Domain = "", ""
			}
			begun := time.Now()
			r.start(e)
			time.Sleep(day)
			synctest.Wait()
			r.stop()
			if len(r.dsns) != want {
				t.Fatalf("%d delay notices for user %q, want %d", len(r.dsns), user, want)
			}
			if want == 0 {
				return
			}
			d, err := readReport(r.dsns[0])
			if err != nil {
				t.Fatal(err)
			}
			check(t, d.each[0], map[string]string{"Action": "delayed", "Status": "4.7.1", "Diagnostic-Code": "smtp; 451 4.7.1 Try again later"})
			until, err := mail.ParseDate(d.each[0].Get("Will-Retry-Until"))
			if off := until.Sub(begun.Add(120 * hour)); err != nil || off < -10*time.Minute || off > hour {
				t.Errorf("it will be tried until %v (%v), %v off", until, err, off)
			}
		})
	}
}

func TestSuccessNotice(t *testing.T) {
	e := newEnvelope(t, idA, "a@one.test")
	e.Recipients[0].Notify, e.Return = []string{"SUCCESS"}, "FULL"
	d := one(t, e, original, taken)
	check(t, d.each[0], map[string]string{"Action": "relayed", "Status": "2.0.0", "Diagnostic-Code": ""})
	if strings.Contains(d.given, "Hello") {
		t.Error("the whole message is given back where nothing failed")
	}
}

// TestSuccessAtItsEnd: a mailbox and a program are delivered to, not relayed to (RFC 3464 section 2.3.3).
func TestSuccessAtItsEnd(t *testing.T) {
	for name, change := range map[string]func(r *Recipient){
		"mailbox": func(r *Recipient) { r.Mailbox = true },
		"program": func(r *Recipient) { r.Pipe = []string{"/bin/keep"} },
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnvelope(t, idA, "a@one.test", "b@one.test")
			for i := range e.Recipients {
				e.Recipients[i].Notify = []string{"SUCCESS"}
			}
			change(&e.Recipients[0])
			list := reports(t, e, original, taken)
			actions := map[string]string{}
			for _, d := range list {
				for _, about := range d.each {
					actions[about.Get("Final-Recipient")] = about.Get("Action")
				}
			}
			if actions["rfc822; a@one.test"] != "delivered" || actions["rfc822; b@one.test"] != "relayed" {
				t.Errorf("%d DSNs with %v", len(list), actions)
			}
			alone := newEnvelope(t, idA, "a@one.test")
			alone.Recipients[0].Notify = []string{"SUCCESS"}
			change(&alone.Recipients[0])
			d := one(t, alone, original, taken)
			check(t, d.header, map[string]string{"Subject": "Your message was delivered"})
			if !strings.Contains(d.people, "To: <a@one.test>\r\n    It was delivered.\r\n") || strings.Contains(d.people, "It was handed on") {
				t.Errorf("for people:\n%s", d.people)
			}
		})
	}
}

// TestEnvelopeOfADSN: what it needs of the servers that carry it.
func TestEnvelopeOfADSN(t *testing.T) {
	for sender, body := range map[string]string{"me@example.org": original, "jürgen@example.org": "Subject: \xc3\xa9\r\n\r\n"} {
		bubble(t, func(t *testing.T) {
			var note *Envelope
			r := newRig(t, nil)
			r.deliver = &deliverer{group: byDomain, deliver: func(_ context.Context, w *Work) []Outcome {
				if w.Envelope.Sender.IsNull() {
					note = w.Envelope
				}
				return all(w, gone)
			}}
			e := newEnvelope(t, idA, "a@one.test")
			e.Sender = addr(t, sender)
			r.run()
			if err := r.Queue.Add(e, strings.NewReader(body)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			r.stop()
			other := !e.Sender.ASCII()
			if note == nil || note.UTF8 != other || note.EightBit != other || note.Recipients[0].Address != e.Sender || !note.Recipients[0].ReturnPath.IsNull() {
				t.Errorf("the DSN to %s: %s", sender, text(note))
			}
		})
	}
}

// What was to be kept under TLS is not given back where it might not be.
func TestDSNAboutRequireTLSGivesNothingBack(t *testing.T) {
	e := newEnvelope(t, idA, "a@one.test")
	e.RequireTLS, e.Return = true, "FULL"
	d := one(t, e, original, gone)
	if len(d.kinds) != 2 || strings.Contains(d.raw, original[strings.Index(original, "\r\n\r\n"):]) {
		t.Errorf("parts %q in\n%s", d.kinds, d.raw)
	}
}

// TestDSNWithoutItsOriginal: a body that cannot be read must not keep the sender from hearing.
func TestDSNWithoutItsOriginal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var r *rig
		r = newRig(t, func(_ context.Context, w *Work) []Outcome {
			failed := false
			r.disk.before = func(op, _ string) error {
				if op == "read" && !failed {
					failed = true
					return errors.New("bad sector")
				}
				return nil
			}
			return all(w, gone)
		})
		r.start(newEnvelope(t, idA, "a@one.test"))
		synctest.Wait()
		r.stop()
		if len(r.dsns) != 1 || !r.empty() {
			t.Fatalf("%d DSNs, left: %v", len(r.dsns), listed(r.store))
		}
		if d, err := readReport(r.dsns[0]); err != nil || len(d.kinds) != 2 {
			t.Errorf("%v\n%s", err, r.dsns[0])
		}
	})
}
