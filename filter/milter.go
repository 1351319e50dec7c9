package filter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	protocol "github.com/emersion/go-milter"

	"relayd/message"
	"relayd/reply"
)

const (
	// milterTime is how long a milter has for a message, with the wait until there is a slot, and
	// replyTime for each of its replies.
	milterTime = 30 * time.Second
	replyTime  = 10 * time.Second
	// maxReply is how much of a milter's own words is passed on, in octets.
	maxReply = 300
)

// milterActions are what milters may ask for. None of it is heeded, but most milters do not run where
// they could not add a field. To hold a message back is not among them: who relies upon that is to
// learn that it is not done.
const milterActions = protocol.OptAddHeader | protocol.OptChangeBody | protocol.OptAddRcpt | protocol.OptRemoveRcpt | protocol.OptChangeHeader

// milterOmits are the commands that milters may do without. With these and the actions above, which
// stand in version 2 of the protocol, the library also talks to milters that know no later one.
const milterOmits = protocol.OptNoConnect | protocol.OptNoHelo | protocol.OptNoMailFrom | protocol.OptNoRcptTo | protocol.OptNoBody |
	protocol.OptNoHeaders | protocol.OptNoEOH

// A milter is asked about whole messages, in a session of its own for each.
type milter struct {
	name             string // for the admin
	setting          string
	network, address string
	hostname         string
	slots            chan struct{} // holds a token for each message under way
}

func newMilter(setting, hostname string) *milter {
	m := &milter{name: "milter " + setting, setting: setting, network: "unix", hostname: hostname, slots: make(chan struct{}, maxAtOnce)}
	var inet bool
	if m.address, inet = strings.CutPrefix(setting, "inet:"); inet {
		m.network = "tcp"
	} else {
		m.address = strings.TrimPrefix(setting, "unix:")
	}
	return m
}

// A dialled connection is a Dialer for the library, which knows no contexts.
type dialled struct{ net.Conn }

func (d dialled) Dial(string, string) (net.Conn, error) { return d.Conn, nil }

// ask tells the milter the transaction. It returns the refusal, nil where the message may pass, and
// an error where the milter does not say.
func (m *milter) ask(ctx context.Context, msg *Message) (refusal *reply.Reply, err error) {
	ctx, cancel := context.WithTimeout(ctx, milterTime)
	defer cancel()
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("it has %d messages at once, and none is done", maxAtOnce)
	}
	conn, err := new(net.Dialer).DialContext(ctx, m.network, m.address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	client := protocol.NewClientWithOptions(m.network, m.address, protocol.ClientOptions{
		Dialer: dialled{conn}, ReadTimeout: replyTime, WriteTimeout: replyTime, ActionMask: milterActions, ProtocolMask: milterOmits,
	})
	session, err := client.Session()
	if err != nil {
		return nil, err
	}
	defer session.Close()
	action, err := m.tell(session, msg)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it takes longer than %s", milterTime)
		}
		return nil, err
	}
	return verdict(action)
}

// goesOn reports whether a milter wants to hear more.
func goesOn(a *protocol.Action, err error) bool { return err == nil && a.Code == protocol.ActContinue }

// tell goes through the transaction, until the milter has made up its mind.
func (m *milter) tell(s *protocol.ClientSession, msg *Message) (*protocol.Action, error) {
	if err := s.Macros(protocol.CodeConn, "j", m.hostname, "{daemon_name}", "relayd"); err != nil {
		return nil, err
	}
	name, family := msg.Name, protocol.FamilyInet
	if name == "" {
		name = "[" + msg.IP.String() + "]"
	}
	if msg.IP.Unmap().Is6() {
		family = protocol.FamilyInet6
	}
	if a, err := s.Conn(name, family, 0, msg.IP.Unmap().WithZone("").String()); !goesOn(a, err) {
		return a, err
	}
	if a, err := s.Helo(message.Token(msg.Helo)); !goesOn(a, err) {
		return a, err
	}
	if err := s.Macros(protocol.CodeMail, "i", msg.ID, "{mail_addr}", msg.Sender.String()); err != nil {
		return nil, err
	}
	if a, err := s.Mail(msg.Sender.String(), nil); !goesOn(a, err) {
		return a, err
	}
	if a, err := tellRecipients(s, msg); !goesOn(a, err) {
		return a, err
	}
	return tellText(s, msg)
}

// tellRecipients names all recipients. They have been taken already, so a milter's word against one
// of them counts only if it has one against each: the last is then returned.
func tellRecipients(s *protocol.ClientSession, msg *Message) (*protocol.Action, error) {
	going := &protocol.Action{Code: protocol.ActContinue}
	var last *protocol.Action
	refused := 0
	for _, to := range msg.Recipients {
		if err := s.Macros(protocol.CodeRcpt, "i", msg.ID, "{rcpt_addr}", to.String()); err != nil {
			return nil, err
		}
		a, err := s.Rcpt(to.String(), nil)
		switch {
		case err != nil || a.Code == protocol.ActAccept || a.Code == protocol.ActDiscard:
			return a, err
		case a.Code != protocol.ActContinue:
			refused++
			last = a
		}
	}
	if refused > 0 && refused == len(msg.Recipients) {
		return last, nil
	}
	return going, nil
}

// tellText sends header and body as they came.
func tellText(s *protocol.ClientSession, msg *Message) (*protocol.Action, error) {
	for _, f := range fields(msg.Header.Raw()) {
		if a, err := s.HeaderField(f.name, f.value); !goesOn(a, err) {
			return a, err
		}
	}
	if a, err := s.HeaderEnd(); !goesOn(a, err) {
		return a, err
	}
	text := msg.Open()
	if _, err := io.CopyN(io.Discard, text, int64(len(msg.Header.Raw()))+2); err != nil && err != io.EOF { // and the blank line
		return nil, err
	}
	buf := make([]byte, protocol.MaxBodyChunk)
	for {
		n, err := io.ReadFull(text, buf)
		if n > 0 {
			if a, err := s.BodyChunk(buf[:n]); !goesOn(a, err) {
				return a, err
			}
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	if err := s.Macros(protocol.CodeEOB, "i", msg.ID); err != nil {
		return nil, err
	}
	_, a, err := s.End() // what it would change is not heeded
	return a, err
}

// A field is a header field for a milter: a value of several lines has LF between them, and the
// blank behind the colon is not part of it.
type field struct{ name, value string }

func fields(raw []byte) []field {
	var list []field
	for line := range bytes.Lines(raw) {
		text := strings.ReplaceAll(strings.TrimRight(string(line), "\r\n"), "\x00", "?") // it ends a text of the protocol
		if len(list) > 0 && (strings.HasPrefix(text, " ") || strings.HasPrefix(text, "\t")) {
			list[len(list)-1].value += "\n" + text
			continue
		}
		name, value, _ := strings.Cut(text, ":")
		list = append(list, field{strings.TrimRight(name, " \t"), strings.TrimPrefix(value, " ")})
	}
	return list
}

// verdict is what a milter's last word comes to.
func verdict(a *protocol.Action) (*reply.Reply, error) {
	switch a.Code {
	case protocol.ActAccept, protocol.ActContinue:
		return nil, nil
	case protocol.ActReject, protocol.ActDiscard: // mail is not thrown away here
		return reply.New(550, "5.7.1", "A filter of this server does not take the message"), nil
	case protocol.ActTempFail:
		return reply.New(451, "4.7.1", "A filter of this server does not take the message now, please try again later"), nil
	case protocol.ActReplyCode:
		return ownReply(a.SMTPCode, a.SMTPText)
	}
	return nil, fmt.Errorf("it answers %q, which is not known", byte(a.Code))
}

// ownReply is a refusal in a milter's own words, in which "%%" stands for "%".
func ownReply(code int, text string) (*reply.Reply, error) {
	if code < 400 || code > 599 {
		return nil, errors.New("its reply has a code that refuses nothing")
	}
	enhanced, text := reply.SplitEnhanced(code, clean(strings.ReplaceAll(text, "%%", "%"), maxReply))
	if enhanced == "" {
		enhanced = fmt.Sprintf("%d.7.1", code/100)
	}
	return reply.New(code, enhanced, "%s", text), nil
}
