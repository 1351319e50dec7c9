package queue

import (
	"bytes"
	"io"
	"slices"
	"strings"

	"relayd/message"
)

// The actions of RFC 3464 section 2.3.3 that we report. A DSN about success is one of actionRelayed,
// and says actionDelivered of those recipients whose mail has come to its end here.
const (
	actionFailed    = "failed"
	actionDelayed   = "delayed"
	actionRelayed   = "relayed"
	actionDelivered = "delivered"
)

// notify puts one DSN about these recipients into the queue, if somebody may and wants to get it.
// An error, which is logged, means that somebody should and could not be told now.
func (q *Queue) notify(e *Envelope, indexes []int, action string) error {
	about := q.unaware(e, indexes, action)
	switch {
	case len(about) == 0 || action == actionDelayed && e.User.IsNull():
		return nil
	case e.Sender.IsNull() || !e.Authentic:
		q.opt.Log.Info("nobody is told: the sender is null or not known to be real", "id", e.ID, "from", "<"+e.Sender.String()+">", "action", action)
		return nil
	}
	err := q.addDSN(e, about, action)
	if err != nil {
		q.opt.Log.Error("a DSN could not be put into the queue", "id", e.ID, "action", action, "error", err.Error())
	}
	return err
}

// unaware are the recipients among indexes that the sender wants to hear of, and has not heard
// of: who wrote to an alias of three mailboxes is told of one failure, not three.
func (q *Queue) unaware(e *Envelope, indexes []int, action string) []*Recipient {
	told := map[string]bool{}
	for i := range e.Recipients {
		if r := &e.Recipients[i]; !slices.Contains(indexes, i) && wants(r, action) && wasTold(r, action) {
			told[r.name().Key()] = true
		}
	}
	var about []*Recipient
	for _, i := range indexes {
		if r := &e.Recipients[i]; wants(r, action) && !told[r.name().Key()] {
			told[r.name().Key()] = true
			about = append(about, r)
		}
	}
	return about
}

// wasTold reports whether the state that r has been left in was told then.
func wasTold(r *Recipient, action string) bool {
	switch action {
	case actionFailed:
		return r.State == Failed
	case actionDelayed:
		return r.Delayed
	}
	return r.State == Delivered
}

// wants is RFC 3461 section 4.1: without NOTIFY, failures and delays are told.
func wants(r *Recipient, action string) bool {
	switch {
	case slices.Contains(r.Notify, "NEVER"):
		return false
	case action == actionFailed:
		return len(r.Notify) == 0 || slices.Contains(r.Notify, "FAILURE")
	case action == actionDelayed:
		return len(r.Notify) == 0 || slices.Contains(r.Notify, "DELAY")
	}
	return slices.Contains(r.Notify, "SUCCESS")
}

// addDSN fails only for what may pass: a DSN that can never be made would keep its message for ever.
func (q *Queue) addDSN(e *Envelope, about []*Recipient, action string) error {
	now := q.now()
	d := &dsn{
		about: e, recipients: about, action: action, id: NewID(now), now: now, hostname: q.opt.Hostname, domain: q.opt.Hostname,
		until: now.Add(q.opt.Lifetime - about[0].Tried),
	}
	if !e.User.IsNull() {
		d.domain = e.User.Domain
	} else if !about[0].Alias.IsNull() {
		d.domain = about[0].Alias.Domain
	}
	if err := q.readOriginal(d); err != nil {
		q.opt.Log.Error("a DSN goes without the original, which cannot be read", "id", e.ID, "error", err.Error())
	}
	if automatic(d.header) {
		q.opt.Log.Info("nobody is told: the message is a list's, a report, or was sent by a program", "id", e.ID, "from", "<"+e.Sender.String()+">", "action", action)
		return nil
	}
	if e.RequireTLS { // few could be told under REQUIRETLS, so they are without what was to be kept
		d.original = nil // RFC 8689 on redacted messages
	}
	text := d.format()
	signature, err := q.opt.Sign(d.domain, bytes.NewReader(text))
	if err != nil {
		return err
	}
	note := &Envelope{
		ID: d.id, Received: now, UTF8: !e.Sender.ASCII(), EightBit: !isASCII(text),
		Recipients: []Recipient{{Address: e.Sender, Notify: []string{"NEVER"}}},
	}
	q.prepare(note)
	if err := q.store.Add(note, io.MultiReader(strings.NewReader(signature), bytes.NewReader(text))); err != nil {
		return err
	}
	defer q.poke() // what becomes of it stands behind this line in the log
	q.opt.Log.Info("DSN queued", "id", d.id, "about", e.ID, "action", d.done(about[0]), "to", "<"+e.Sender.String()+">")
	return nil
}

// maxReturned is how much of a message is given back, in bytes.
const maxReturned = 64 << 10

// readOriginal reads what d gives back of the message: its header, or all of it where the sender
// asked for that, it failed, and it is small.
func (q *Queue) readOriginal(d *dsn) error {
	body, err := q.store.Body(d.about.ID)
	if err != nil {
		return err
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxReturned))
	if err != nil {
		return err
	}
	d.original = text
	switch i := bytes.Index(text, []byte("\r\n\r\n")); {
	case bytes.HasPrefix(text, []byte("\r\n")):
		d.original = nil
	case i >= 0:
		d.original = text[:i+2]
	default: // no body, or a header of which only whole lines are given back
		d.original = text[:1+bytes.LastIndexByte(text, '\n')]
	}
	d.header, err = message.ParseHeader(d.original)
	if d.about.Return == "FULL" && d.about.Size < maxReturned && d.action == actionFailed {
		d.original, d.full = text, true
	}
	return err
}

// automatic reports whether no person waits for an answer to a message with that header
// (RFC 3834 section 2).
func automatic(h message.Header) bool {
	auto, _, _ := strings.Cut(h.Get("Auto-Submitted"), ";")
	auto, _, _ = strings.Cut(auto, "(")
	if auto = strings.TrimSpace(auto); auto != "" && !strings.EqualFold(auto, "no") {
		return true
	}
	if h.Has("List-Id") || h.Has("List-Post") {
		return true
	}
	switch strings.ToLower(h.Get("Precedence")) {
	case "bulk", "list", "junk":
		return true
	}
	return strings.HasPrefix(strings.ToLower(h.Get("Content-Type")), "multipart/report")
}

func isASCII(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c >= 0x80 })
}
