package queue

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"relayd/message"
	"relayd/reply"
)

// A dsn is a delivery status notification in the making (RFC 3464; RFC 6533 where an address is
// not ASCII). The destination behind an alias is never named in it. What it quotes of others is
// cut and cleaned: no line that we write is over 998 octets, and none begins in a quotation.
type dsn struct {
	about            *Envelope
	recipients       []*Recipient
	action           string
	id               string // of the DSN itself
	now, until       time.Time
	hostname, domain string // who reports, and in whose name
	original         []byte // what is given back
	full             bool   // original is the whole message, not just the header
	header           message.Header
}

// utf8 reports whether an address in the part for programs is not ASCII.
func (d *dsn) utf8() bool {
	for _, r := range d.recipients {
		if !r.name().ASCII() || !isASCII([]byte(r.Original)) {
			return true
		}
	}
	return false
}

// diagnosis is the last reply, without the address behind any alias.
func (d *dsn) diagnosis(r *Recipient) string {
	text := r.LastReply
	for i := range d.about.Recipients {
		if hidden := &d.about.Recipients[i]; !hidden.Alias.IsNull() {
			text = mask(text, hidden.Address, hidden.Alias)
		}
	}
	return text
}

// format is the whole message.
func (d *dsn) format() []byte {
	boundary := "=_" + d.id
	var parts bytes.Buffer
	part := func(kind string, content []byte) {
		fmt.Fprintf(&parts, "--%s\r\nContent-Type: %s\r\n%s\r\n%s\r\n", boundary, kind, transferEncoding(content), content)
	}
	part("text/plain; charset=utf-8", d.explanation())
	part(d.status())
	if len(d.original) > 0 {
		part(d.originalType(), d.original)
	}
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	line("From: Mail Delivery System <MAILER-DAEMON@%s>", d.domain)
	line("To: <%s>", d.about.Sender)
	line("Subject: %s", d.subject())
	line("Date: %s", message.Date(d.now))
	line("Message-ID: <%s@%s>", d.id, d.hostname)
	if id := d.header.Get("Message-ID"); isMessageID(id) {
		line("In-Reply-To: %s", id)
	}
	line("Auto-Submitted: auto-replied")
	line("MIME-Version: 1.0")
	line("Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"%s\"", boundary)
	b.WriteString(transferEncoding(parts.Bytes()))
	line("")
	b.Write(parts.Bytes())
	line("--%s--", boundary)
	return b.Bytes()
}

// transferEncoding is the field that content needs: 8-bit content must be announced.
func transferEncoding(content []byte) string {
	if isASCII(content) {
		return ""
	}
	return "Content-Transfer-Encoding: 8bit\r\n"
}

// done is what was done for r. A mailbox of ours and a program are where mail ends; a server that it
// was handed to may send it on.
func (d *dsn) done(r *Recipient) string {
	if d.action == actionRelayed && (r.Mailbox || len(r.Pipe) > 0) {
		return actionDelivered
	}
	return d.action
}

func (d *dsn) subject() string {
	switch d.action {
	case actionFailed:
		return "Your message could not be delivered"
	case actionDelayed:
		return "Your message is delayed"
	}
	if !slices.ContainsFunc(d.recipients, func(r *Recipient) bool { return d.done(r) == actionRelayed }) {
		return "Your message was delivered"
	}
	return "Your message was handed on"
}

// explanation is the part for people.
func (d *dsn) explanation() []byte {
	var b bytes.Buffer
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\r\n", args...) }
	switch d.action {
	case actionFailed:
		line("Your message could not be delivered to everybody it was for. It will not be tried again.\r\n")
	case actionDelayed:
		line("Your message has not been delivered yet. It will be tried again; there is nothing that you\r\nneed to do.\r\n")
	default:
		line("You asked to be told when your message is delivered, or handed on.\r\n")
	}
	for _, r := range d.recipients {
		line("    To: <%s>", r.name())
		switch d.done(r) {
		case actionRelayed:
			line("    It was handed on to a server that reports nothing about what becomes of it.")
		case actionDelivered:
			line("    It was delivered.")
		default:
			line("    The answer was: %s", message.OneLine(d.diagnosis(r), maxQuoted))
		}
		line("")
	}
	line("This is %s, the mail server that tried, about message %s.", d.hostname, d.about.ID)
	return b.Bytes()
}

// Lengths of what is quoted, in octets: the fields with their names stay under 998.
const (
	maxQuoted     = 900
	maxEnvelopeID = 100 // RFC 3461 section 4.4
	maxOriginal   = 500 // RFC 3461 section 4.2
)

// status is the part for programs (RFC 3464 section 2), and its type.
func (d *dsn) status() (kind string, content []byte) {
	kind, quote := "message/delivery-status", cleanASCII
	if d.utf8() {
		kind, quote = "message/global-delivery-status", message.OneLine
	}
	var b bytes.Buffer
	field := func(name, format string, args ...any) { fmt.Fprintf(&b, name+": "+format+"\r\n", args...) }
	field("Reporting-MTA", "dns; %s", d.hostname)
	if id := cleanASCII(d.about.EnvelopeID, maxEnvelopeID); id != "" {
		field("Original-Envelope-Id", "%s", id)
	}
	field("Arrival-Date", "%s", message.Date(d.about.Received))
	for _, r := range d.recipients {
		b.WriteString("\r\n")
		if kind, original, ok := strings.Cut(r.Original, ";"); ok && isAtom(kind) {
			field("Original-Recipient", "%s;%s", strings.ToLower(kind), quote(original, maxOriginal))
		}
		addressType := "rfc822"
		if !r.name().ASCII() {
			addressType = "utf-8"
		}
		field("Final-Recipient", "%s; %s", addressType, r.name())
		field("Action", "%s", d.done(r))
		field("Status", "%s", d.code(r))
		if host := cleanASCII(r.LastHost, maxQuoted); host != "" && r.Alias.IsNull() {
			field("Remote-MTA", "dns; %s", host)
		}
		if text := quote(d.diagnosis(r), maxQuoted); text != "" && d.action != actionRelayed {
			field("Diagnostic-Code", "smtp; %s", text)
		}
		if d.action == actionDelayed {
			field("Will-Retry-Until", "%s", message.Date(d.until))
		}
	}
	return kind, b.Bytes()
}

// code is the enhanced status code of the last reply, or one that fits the action.
func (d *dsn) code(r *Recipient) string {
	class := map[string]int{actionFailed: 5, actionDelayed: 4, actionRelayed: 2}[d.action]
	_, text, _ := strings.Cut(r.LastReply, " ")
	if enhanced, _ := reply.SplitEnhanced(100*class, text); enhanced != "" {
		return enhanced
	}
	return fmt.Sprintf("%d.0.0", class)
}

// originalType is what the original, or its header, is. The types of RFC 6532 are for UTF-8;
// a header of other bytes is nothing that has a name.
func (d *dsn) originalType() string {
	international := !isASCII(d.header.Raw()) && utf8.Valid(d.header.Raw())
	switch {
	case d.full && international:
		return "message/global"
	case d.full:
		return "message/rfc822"
	case international:
		return "message/global-headers"
	}
	return "text/rfc822-headers"
}

// cleanASCII is message.OneLine where only ASCII may stand.
func cleanASCII(s string, limit int) string {
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, message.OneLine(s, limit))
}

// isAtom reports whether s can be an address type (RFC 3464 section 2.1.2).
func isAtom(s string) bool {
	return s != "" && len(s) < 50 && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// isMessageID reports whether s is one msg-id that can stand in a field as it is.
func isMessageID(s string) bool {
	if len(s) < 3 || len(s) > maxQuoted || s[0] != '<' || s[len(s)-1] != '>' {
		return false
	}
	return !strings.ContainsFunc(s[1:len(s)-1], func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '<' || r == '>' })
}
