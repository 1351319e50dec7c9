package queue

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"relayd/address"
	"relayd/message"
)

// The actions of RFC 3464 section 2.3.3 that we report.
const (
	actionFailed  = "failed"
	actionDelayed = "delayed"
	actionRelayed = "relayed"
)

// notify puts one DSN about these recipients into the queue, if somebody may and wants to get it.
func (q *Queue) notify(e *Envelope, indexes []int, action string) {
	var about []*Recipient
	for _, i := range indexes {
		if r := &e.Recipients[i]; wants(r, action) {
			about = append(about, r)
		}
	}
	switch {
	case len(about) == 0:
		return
	case e.Sender.IsNull() || !e.Authentic:
		q.opt.Log.Info("nobody is told: the sender is null or not known to be real", "id", e.ID, "from", "<"+e.Sender.String()+">", "action", action)
		return
	case action == actionDelayed && e.User.IsNull():
		return
	}
	if err := q.addDSN(e, about, action); err != nil {
		q.opt.Log.Error("a DSN could not be put into the queue", "id", e.ID, "error", err.Error())
	}
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

func (q *Queue) addDSN(e *Envelope, about []*Recipient, action string) error {
	d := &dsn{about: e, recipients: about, action: action, id: NewID(q.opt.Now()), now: q.opt.Now(), hostname: q.opt.Hostname}
	d.domain = q.opt.Hostname
	if !e.User.IsNull() {
		d.domain = e.User.Domain
	} else if !about[0].Alias.IsNull() {
		d.domain = about[0].Alias.Domain
	}
	body, err := q.store.Body(e.ID)
	if err != nil {
		return err
	}
	defer body.Close()
	text, err := d.format(body)
	if err != nil {
		return err
	}
	signature, err := q.opt.Sign(d.domain, bytes.NewReader(text))
	if err != nil {
		return err
	}
	note := &Envelope{
		ID: d.id, Received: d.now, UTF8: d.utf8(), EightBit: d.utf8(),
		Recipients: []Recipient{{Address: e.Sender, Notify: []string{"NEVER"}}},
	}
	if err := q.Add(note, io.MultiReader(strings.NewReader(signature), bytes.NewReader(text))); err != nil {
		return err
	}
	q.opt.Log.Info("DSN queued", "id", d.id, "about", e.ID, "action", action, "to", "<"+e.Sender.String()+">")
	return nil
}

// A dsn is a delivery status notification in the making (RFC 3464; RFC 6533 where an address is
// not ASCII). The destination behind an alias is never named in it.
type dsn struct {
	about            *Envelope
	recipients       []*Recipient
	action           string
	id               string // of the DSN itself
	now              time.Time
	hostname, domain string // who reports, and in whose name
}

func (d *dsn) utf8() bool {
	for _, r := range d.recipients {
		if !d.name(r).ASCII() {
			return true
		}
	}
	return !d.about.Sender.ASCII() || d.about.UTF8
}

// name is the address that the sender knows the recipient by.
func (d *dsn) name(r *Recipient) address.Address {
	if !r.Alias.IsNull() {
		return r.Alias
	}
	return r.Address
}

// diagnosis is the last reply, without the address behind an alias.
func (d *dsn) diagnosis(r *Recipient) string {
	if r.Alias.IsNull() {
		return r.LastReply
	}
	return Mask(r.LastReply, r.Address, r.Alias)
}

// Mask puts alias in the place of target wherever a remote server's words name it.
func Mask(text string, target, alias address.Address) string {
	for _, secret := range []string{target.String(), target.Local + "@" + target.Domain} {
		lower := strings.ToLower(secret)
		for at := 0; ; {
			i := strings.Index(strings.ToLower(text[at:]), lower)
			if i < 0 || len(strings.ToLower(text)) != len(text) {
				break
			}
			text = text[:at+i] + alias.String() + text[at+i+len(secret):]
			at += i + len(alias.String())
		}
	}
	return text
}

// maxReturned is how much of a message is given back, in bytes.
const maxReturned = 64 << 10

func (d *dsn) format(body io.Reader) ([]byte, error) {
	header, full, err := d.original(body)
	if err != nil {
		return nil, err
	}
	boundary := "=_" + d.id
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: Mail Delivery System <MAILER-DAEMON@%s>", d.domain)
	line("To: <%s>", d.about.Sender)
	line("Subject: %s", d.subject())
	line("Date: %s", message.Date(d.now))
	line("Message-ID: <%s@%s>", d.id, d.hostname)
	if id := header.Get("Message-ID"); id != "" && len(id) < 500 && !strings.ContainsAny(id, "\r\n") {
		line("In-Reply-To: %s", id)
	}
	line("Auto-Submitted: auto-replied")
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"%s\"", boundary)
	line("")
	line("--%s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n", boundary)
	d.explain(line)
	d.status(line, boundary)
	d.attach(&b, boundary, header, full)
	line("\r\n--%s--", boundary)
	return b.Bytes(), nil
}

func (d *dsn) subject() string {
	switch d.action {
	case actionFailed:
		return "Your message could not be delivered"
	case actionDelayed:
		return "Your message is delayed"
	}
	return "Your message was handed on"
}

// explain is the part for people.
func (d *dsn) explain(line func(string, ...any)) {
	switch d.action {
	case actionFailed:
		line("Your message could not be delivered to everybody it was for. It will not be tried again.\r\n")
	case actionDelayed:
		line("Your message has not been delivered yet. It will be tried again; there is nothing that you\r\nneed to do.\r\n")
	default:
		line("Your message was handed on to a server that reports nothing about what becomes of it.\r\n")
	}
	for _, r := range d.recipients {
		line("    To: <%s>", d.name(r))
		if d.action != actionRelayed {
			line("    The answer was: %s\r\n", d.diagnosis(r))
		}
	}
	line("This is %s, the mail server that tried, about message %s.\r\n", d.hostname, d.about.ID)
}

// status is the part for programs (RFC 3464 section 2).
func (d *dsn) status(line func(string, ...any), boundary string) {
	kind, addressType := "message/delivery-status", "rfc822"
	if d.utf8() {
		kind, addressType = "message/global-delivery-status", "utf-8"
	}
	line("--%s\r\nContent-Type: %s\r\n", boundary, kind)
	line("Reporting-MTA: dns; %s", d.hostname)
	if d.about.EnvelopeID != "" {
		line("Original-Envelope-Id: %s", d.about.EnvelopeID)
	}
	line("Arrival-Date: %s", message.Date(d.about.Received))
	for _, r := range d.recipients {
		line("")
		if kind, original, ok := strings.Cut(r.Original, ";"); ok {
			line("Original-Recipient: %s;%s", strings.ToLower(kind), original)
		}
		line("Final-Recipient: %s; %s", addressType, d.name(r))
		line("Action: %s", d.action)
		line("Status: %s", d.code(r))
		if r.LastHost != "" && r.Alias.IsNull() {
			line("Remote-MTA: dns; %s", r.LastHost)
		}
		if r.LastReply != "" && d.action != actionRelayed {
			line("Diagnostic-Code: smtp; %s", d.diagnosis(r))
		}
		if d.action == actionDelayed {
			line("Will-Retry-Until: %s", message.Date(r.Next))
		}
	}
	line("")
}

// code is the enhanced status code of the last reply, or one that fits the action.
func (d *dsn) code(r *Recipient) string {
	class := map[string]string{actionFailed: "5", actionDelayed: "4", actionRelayed: "2"}[d.action]
	if words := strings.Fields(r.LastReply); len(words) > 1 && strings.HasPrefix(words[1], class+".") && strings.Count(words[1], ".") == 2 {
		return words[1]
	}
	return class + ".0.0"
}

// attach gives back the original header, or all of it where the sender asked and it is small.
func (d *dsn) attach(b *bytes.Buffer, boundary string, header message.Header, full []byte) {
	kind, content := "text/rfc822-headers", header.Raw()
	switch {
	case full != nil && d.utf8():
		kind, content = "message/global", full
	case full != nil:
		kind, content = "message/rfc822", full
	case d.utf8() || !header.ASCII():
		kind = "message/global-headers"
	}
	fmt.Fprintf(b, "--%s\r\nContent-Type: %s\r\n", boundary, kind)
	if !isASCII(content) {
		b.WriteString("Content-Transfer-Encoding: 8bit\r\n")
	}
	b.WriteString("\r\n")
	b.Write(content)
}

// original reads the header of the message, and all of it (full) if that is what is given back.
func (d *dsn) original(body io.Reader) (header message.Header, full []byte, err error) {
	r := bufio.NewReader(io.LimitReader(body, maxReturned))
	text, err := io.ReadAll(r)
	if err != nil {
		return header, nil, err
	}
	raw := text
	if i := bytes.Index(text, []byte("\r\n\r\n")); i >= 0 {
		raw = text[:i+2]
	} else if i := bytes.LastIndex(text, []byte("\r\n")); i >= 0 {
		raw = text[:i+2]
	}
	header, err = message.ParseHeader(raw)
	if d.about.Return == "FULL" && d.about.Size < maxReturned && d.action == actionFailed {
		full = text
	}
	return header, full, err
}

func isASCII(b []byte) bool { return bytes.IndexFunc(b, func(r rune) bool { return r > 127 }) < 0 }
