package sendmail

import (
	"fmt"
	"io"
	"mime"
	"slices"
	"strings"

	"relayd/address"
	"relayd/config"
	"relayd/message"
	"relayd/relay"
	"relayd/reply"
)

// A Rule says which addresses local users are and may send as.
type Rule struct {
	config.Sendmail
	// Local reports whether a domain in lower case is a name of this machine and no hosted domain: what
	// is written there, as by programs that know no better, is meant for Domain.
	Local func(domain string) bool
}

// own is the address of a local user.
func (r *Rule) own(name string) (address.Address, error) {
	a, err := address.FromPath(name+"@"+r.Domain, false)
	if err != nil {
		return a, reply.New(550, "5.7.1", "Your user name cannot be an address of %s: %v", r.Domain, err)
	}
	return a, nil
}

// may returns a function that says which addresses a local user may send as: its own, with a suffix or
// without, and what [sendmail] users grants it.
func (r *Rule) may(name string, own address.Address) func(address.Address) error {
	grants := append(slices.Clone(r.Users[name]), r.Users["*"]...)
	return func(as address.Address) error {
		local, _, _ := strings.Cut(as.Local, "+")
		switch {
		case as.Key() == own.Key(), as.Domain == own.Domain && strings.EqualFold(local, own.Local):
			return nil
		case slices.Contains(grants, "*"), slices.Contains(grants, "*@"+as.Domain), slices.Contains(grants, as.Key()):
			return nil
		}
		return reply.New(550, "5.7.1", "The local user %s may not send as <%s>, but as <%s>; allow it in relayd.toml by users = { %[1]s = [%[2]q] } under [sendmail]", name, as, own)
	}
}

// qualified completes an address: a bare name, or one at a name of this machine, is of Domain.
func (r *Rule) qualified(text string) string {
	at := strings.LastIndexByte(text, '@')
	switch {
	case at < 0 && text != "":
		return text + "@" + r.Domain
	case at > 0 && r.Local(strings.ToLower(text[at+1:])):
		return text[:at+1] + r.Domain
	}
	return text
}

// submission makes the envelope of a request of a local user. An error is a *reply.Reply.
func (r *Rule) submission(name string, req *Request) (*relay.Submission, error) {
	own, err := r.own(name)
	if err != nil {
		return nil, err
	}
	s := &relay.Submission{User: own, Rule: r.may(name, own), Sender: own, Return: req.Return, EnvelopeID: req.EnvelopeID}
	switch req.Sender {
	case "":
	case "<>":
		s.Sender = address.Address{}
	default:
		if s.Sender, err = address.Parse(r.qualified(req.Sender)); err != nil {
			return nil, reply.New(553, "5.1.7", "The sender is no address: %v", err)
		}
	}
	seen := map[string]bool{}
	for _, text := range req.Recipients {
		to, err := address.Parse(r.qualified(text))
		if err != nil {
			return nil, reply.New(553, "5.1.3", "Not an address that mail can go to: %v", err)
		}
		if !seen[to.Key()] {
			s.Recipients = append(s.Recipients, relay.Recipient{Address: to, Notify: req.Notify})
		}
		seen[to.Key()] = true
	}
	return s, nil
}

// completed is the message with all addresses of its header completed, and a From if it has none.
func (r *Rule) completed(msg io.Reader, s *relay.Submission, fullName string) (io.Reader, error) {
	fields, rest, err := splitHeader(Lines(msg, false))
	if err != nil {
		return nil, err
	}
	hasFrom := false
	for i, f := range fields {
		hasFrom = hasFrom || f.name == "from"
		switch f.name {
		case "from", "sender", "reply-to", "to", "cc":
			fields[i].raw = r.rewritten(f.raw)
		}
	}
	if !hasFrom {
		from := s.Sender
		if from.IsNull() {
			from = s.User
		}
		value := from.String()
		if fullName != "" {
			value = phrase(message.OneLine(fullName, 200)) + " <" + value + ">"
		}
		fields = append(fields, field{"from", fmt.Appendf(nil, "From: %s\r\n", value)})
	}
	return join(fields, rest), nil
}

// rewritten is a field with its addresses completed.
func (r *Rule) rewritten(raw []byte) []byte {
	name, list, _ := strings.Cut(string(raw), ":")
	var b strings.Builder
	b.WriteString(name + ":")
	at := 0
	for _, one := range spans(list) {
		b.WriteString(list[at:one.start] + r.qualified(list[one.start:one.end]))
		at = one.end
	}
	b.WriteString(list[at:])
	return []byte(b.String())
}

// phrase is a display name as it stands in a field (RFC 5322 section 3.2.5, RFC 2047).
func phrase(name string) string {
	if encoded := mime.QEncoding.Encode("utf-8", name); encoded != name {
		return encoded
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(name) + `"`
}
