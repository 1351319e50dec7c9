package smtpd

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// settle puts go-smtp's reply to the last command on its way, after taking from it what the gate
// must know and putting our words and codes for the library's.
func (g *gate) settle() {
	if len(g.reply) == 0 {
		return
	}
	text := string(g.reply)
	g.reply = g.reply[:0]
	code := lastCode(text)
	verb := g.verb
	if code == 334 && verb == "AUTH" {
		g.mode = dialog
		g.out = append(g.out, text...)
		return
	}
	g.verb = ""
	if g.mode == dialog {
		g.mode = commands
	}
	if g.err != nil && verb != "DATA" {
		return // the library's own word on a connection that is over
	}
	g.note(verb, code)
	g.tarpit(verb, code)
	g.out = append(g.out, g.reword(verb, code, text)...)
	if code == 421 { // says that the connection is closed (RFC 5321 section 3.8), which the library does not do
		g.linger = true
		g.fail(errClosed)
		return
	}
	g.count(verb, code)
}

// note follows the state of the session.
func (g *gate) note(verb string, code int) {
	ok := code >= 200 && code < 400
	switch verb {
	case "EHLO", "HELO":
		g.greeted = g.greeted || ok
		g.inMail, g.recipient = false, false
	case "RSET":
		g.inMail, g.recipient = false, false
	case "MAIL":
		if g.inMail = ok; ok {
			g.mailBegan = time.Now()
		}
	case "RCPT":
		g.recipient = g.recipient || ok
	case "AUTH":
		g.authed = ok
	case "DATA":
		if code == 354 {
			g.mode, g.verb = data, "DATA"
			g.body.reset()
			g.budget.start(g.srv.opt.Limits)
			return
		}
		g.inMail, g.recipient = false, false
		if ok {
			g.counts.empty = 0
			g.useful = time.Now()
		}
	}
}

// tarpit lets who guesses addresses wait for each refusal past the first few, longer every time. Users
// are spared: their lists have old addresses in them.
func (g *gate) tarpit(verb string, code int) {
	if verb != "RCPT" || code < 500 || g.authed {
		return
	}
	g.counts.recipients++
	limits := g.srv.opt.Limits
	over := g.counts.recipients - limits.Unhurried
	if over <= 0 {
		return
	}
	if g.flush() != nil { // what was answered before does not wait as well
		return
	}
	t := time.NewTimer(limits.Delay * time.Duration(min(over, 20)) / 20)
	defer t.Stop()
	select {
	case <-t.C:
	case <-g.srv.ctx.Done():
	}
}

// count holds refused commands against their limits.
func (g *gate) count(verb string, code int) {
	if code < 400 {
		return
	}
	limits := g.srv.opt.Limits
	switch verb {
	case "RCPT":
		g.tooMany(g.counts.recipients > limits.UnknownRecipients, "refused recipients")
	case "AUTH":
		if code == 535 {
			g.counts.logins++
			return
		}
		g.counts.errors++
	case "DATA", "MAIL":
	default:
		g.counts.errors++
	}
	g.tooMany(g.counts.errors > limits.Errors, "wrong commands")
}

// reword puts the replies that go-smtp fixes in its code into the words and codes of our contract.
func (g *gate) reword(verb string, code int, text string) string {
	switch {
	case verb == "EHLO" && code == 250:
		return g.capabilities(text)
	case verb == "HELO" && code == 250:
		return "250 " + g.srv.opt.Hostname + "\r\n"
	case verb == "MAIL" && code == 250:
		return "250 2.1.0 Sender ok\r\n"
	case verb == "RCPT" && code == 250:
		return "250 2.1.5 Recipient ok\r\n"
	case verb == "RSET" && code == 250:
		return "250 2.0.0 Ok\r\n"
	case verb == "AUTH" && code == 235:
		return "235 2.7.0 You are logged in\r\n"
	case verb == "AUTH" && strings.Contains(text, "Invalid base64"):
		return "501 5.5.2 That is not base64\r\n"
	case verb == "AUTH cancelled":
		return ""
	case strings.HasPrefix(text, libraryPanic):
		return errPanicked.String() + "\r\n"
	case strings.HasPrefix(text, "500 5.5.4 Unknown"), strings.HasPrefix(text, "504 5.5.4") && verb != "AUTH":
		return "555 5.5.4 That parameter is not offered here: leave it out\r\n"
	case strings.HasPrefix(text, "501 5.5.2 Was expecting MAIL"):
		return "501 5.5.2 Write MAIL FROM:<name@domain>, or MAIL FROM:<> for a bounce\r\n"
	case strings.HasPrefix(text, "501 5.5.2 Was expecting RCPT"):
		return "501 5.5.2 Write RCPT TO:<name@domain>\r\n"
	}
	return text
}

// capabilities rewrites the library's EHLO reply: our name first, STARTTLS where it can be said,
// REQUIRETLS where it can be kept, the size limit, and no CHUNKING.
func (g *gate) capabilities(text string) string {
	lines := []string{g.srv.opt.Hostname + " at your service"}
	for i, l := range strings.Split(strings.TrimRight(text, "\r\n"), "\r\n") {
		word := l[min(4, len(l)):]
		switch {
		case i == 0, word == "CHUNKING":
			continue
		case word == "SIZE":
			word = "SIZE " + strconv.FormatInt(g.srv.opt.Limits.MessageSize, 10)
		}
		lines = append(lines, word)
	}
	if g.tls == nil && g.srv.opt.TLS != nil {
		lines = append(lines, "STARTTLS")
	}
	if g.tls != nil {
		lines = append(lines, "REQUIRETLS")
	}
	var b bytes.Buffer
	for i, l := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		fmt.Fprintf(&b, "250%s%s\r\n", sep, l)
	}
	return b.String()
}

// lastCode is the code of the last line of a reply, 0 if it has none.
func lastCode(text string) int {
	text = strings.TrimRight(text, "\r\n")
	last := text[strings.LastIndexByte(text, '\n')+1:]
	if len(last) < 3 {
		return 0
	}
	code, err := strconv.Atoi(last[:3])
	if err != nil {
		return 0
	}
	return code
}
