package relay

import (
	"context"
	"strings"
	"time"

	"relayd/address"
	"relayd/config"
	"relayd/dkim"
	"relayd/domains"
	"relayd/mailauth"
	"relayd/message"
	"relayd/reply"
)

// authenticate finds out whether a stranger's message is what it claims to be, refuses it if that
// is called for, and puts the trace of its arrival in front.
//
// Our Authentication-Results goes above our Received: what stands below that was there when the
// message came, so this one field, above it, nobody else can have written (RFC 8601 section 4.1
// wants it at the top). Fields from below that carry our name are forged and do not go on.
func (in *Inbound) authenticate(ctx context.Context, tx *Transaction, m *message.Message) error {
	if err := in.check(ctx, tx, m); err != nil {
		return err
	}
	if err := in.filtered(ctx, tx, m); err != nil {
		return err
	}
	m.LeaveOut(func(header []byte) []byte { return mailauth.RemoveResults(header, in.Config.Hostname) })
	m.Prepend(in.received(tx))
	if tx.verdict != nil && !m.Header.SignedNames()["authentication-results"] {
		m.Prepend(tx.verdict.AuthenticationResults())
	}
	return nil
}

// check asks DNS about a message and judges it. Where no domain wants to know and the author is
// none of ours, DNS is left alone.
func (in *Inbound) check(ctx context.Context, tx *Transaction, m *message.Message) error {
	own, author := in.ownFrom(ctx, tx, m.Header)
	mode := tx.mode(tx.accepted[0])
	if own == "" && mode == config.DMARCOff {
		return nil
	}
	began := in.Now()
	v, err := in.Checker.Check(ctx, mailauth.Message{
		IP: tx.Client.IP, Helo: tx.Client.Helo, Sender: tx.Sender, Header: m.Header, Text: m.Original(),
	})
	if err != nil {
		return reply.Internal(err)
	}
	tx.verdict, tx.checking = v, max(0, in.Now().Sub(began))
	if own == config.OwnFromRefuse && !tx.proven() {
		return ownRefusal(v, author)
	}
	return v.Disposition(mailauth.Mode(mode))
}

// ownFrom is the setting own_from that an author is judged by who is one of ours, or would be taken
// for one since copies leave in the name of the same organisation; "" for any other. One domain
// that refuses is enough: a forgery is one, whomever else it is for.
func (in *Inbound) ownFrom(ctx context.Context, tx *Transaction, h message.Header) (setting, author string) {
	from, err := h.From()
	if err != nil {
		return claimed(tx.world, h)
	}
	if d := tx.world.Get(from.Domain); d != nil {
		return settingsOf(d).OwnFrom, from.String()
	}
	for _, a := range tx.accepted {
		if a.domain == nil || setting == config.OwnFromRefuse {
			continue
		}
		if in.related(ctx, from.Domain, in.srsDomain(a.domain)) {
			setting = a.domain.Settings.OwnFrom
		}
	}
	return setting, from.String()
}

// claimed looks for a hosted domain in From fields that are not one plain address. Others read them
// more leniently than we do, and our reverse-path would prove to them what they read.
func claimed(world *domains.Set, h message.Header) (setting, author string) {
	for _, value := range h.Values("From") {
		solid := strings.Join(strings.Fields(value), "")
		// A parenthesis may begin a comment or stand in quotes: it is read both ways.
		for _, part := range append(domainsIn(solid), domainsIn(withoutComments(solid))...) {
			name, err := address.Domain(part)
			if d := world.Get(name); err == nil && d != nil && setting != config.OwnFromRefuse {
				setting, author = settingsOf(d).OwnFrom, "…@"+name
			}
		}
	}
	return setting, author
}

// domainsIn is what stands behind each @ and may be a domain.
func domainsIn(text string) []string {
	parts := strings.Split(text, "@")[1:]
	for i, part := range parts {
		if end := strings.IndexAny(part, `<>,;:"()[]\`); end >= 0 {
			part = part[:end]
		}
		parts[i] = strings.Trim(part, ".")
	}
	return parts
}

func withoutComments(text string) string {
	depth := 0
	return strings.Map(func(c rune) rune {
		switch {
		case c == '(':
			depth++
		case c == ')' && depth > 0:
			depth--
		case depth == 0:
			return c
		}
		return -1
	}, text)
}

// ownRefusal keeps us from making a forgery genuine by our signature and our reverse-path.
func ownRefusal(v *mailauth.Verdict, author string) error {
	if v.Undecided() {
		return reply.New(451, "4.4.3", "Whether the message is from %s cannot be checked at the moment, for DNS does not answer: please try again later", v.From.Domain)
	}
	_, domain, _ := strings.Cut(author, "@")
	return reply.New(550, "5.7.1", "The message claims to be from <%s>, and neither SPF nor DKIM shows that it is: mail from %s is taken here only if one of them does, or from users who log in", author, domain)
}

// related reports whether two domains are of one organisation. Where DNS does not answer, the
// guess from the public suffix list does. Without two labels in common they cannot be.
func (opt *Options) related(ctx context.Context, a, b string) bool {
	if a == b || lastLabels(a) != lastLabels(b) {
		return a == b
	}
	same, _ := opt.Checker.SameOrganization(ctx, a, b)
	return same
}

// lastLabels are the last two of a domain.
func lastLabels(domain string) string {
	if i := strings.LastIndexByte(domain, '.'); i >= 0 {
		return domain[strings.LastIndexByte(domain[:i], '.')+1:]
	}
	return domain
}

// settingsOf are those of a hosted domain, the defaults where they are not known.
func settingsOf(d *domains.Domain) *config.Domain {
	if d == nil || d.Broken != nil {
		return config.DefaultDomain()
	}
	return d.Settings
}

// mode is what the domain that a recipient was written to in does about DMARC. It is the same for all
// recipients of a transaction.
func (tx *Transaction) mode(a accepted) string {
	d := a.domain
	if d == nil { // an SRS address leads out of it
		d = tx.world.Get(a.Address.Domain)
	}
	return settingsOf(d).DMARC
}

// sameMode has a recipient wait for a transaction of its own if its domain judges mail in another way
// than that of those before. There is one answer for all of them: a refusal would take the message from
// those who asked to be sent everything, and the opposite would let whoever names one of these get
// a forgery, signed by us, to all others.
func (tx *Transaction) sameMode(a accepted) error {
	if tx.Client.Submission || len(tx.accepted) == 0 || tx.mode(a) == tx.mode(tx.accepted[0]) {
		return nil
	}
	return reply.New(452, "4.5.3", "Please send to <%s> in a message of its own, for mail to %s is checked in another way than that to the recipients before", a.Address, a.Address.Domain)
}

// clientName is what reverse DNS calls the client, if that leads back to it.
func (tx *Transaction) clientName() string {
	if tx.verdict == nil {
		return ""
	}
	return tx.verdict.IPRev.Name
}

// proven reports whether SPF or DKIM has shown that the message is from its author's domain.
func (tx *Transaction) proven() bool {
	return tx.verdict != nil && !tx.verdict.From.IsNull() && tx.verdict.Aligned(tx.verdict.From.Domain)
}

// authentic reports whether the sender has really sent the message, and so may be told of it.
func (tx *Transaction) authentic() bool {
	return !tx.Client.User.IsNull() || tx.verdict != nil && tx.verdict.Authentic()
}

// authAttrs are what the log says of a message that was checked: how long that took and what it
// came to, with what the filters have said.
func (tx *Transaction) authAttrs() []any {
	v := tx.verdict
	if v == nil {
		return tx.said
	}
	return append([]any{"auth", tx.checking.Round(time.Millisecond / 10).String(), "spf", string(v.SPF.Result), "dkim", dkimResult(v), "dmarc", string(v.DMARC.Result)}, tx.said...)
}

// dkimResult is the best of all signatures in a word.
func dkimResult(v *mailauth.Verdict) string {
	if len(v.DKIM) == 0 {
		return string(mailauth.None)
	}
	for _, s := range v.DKIM {
		if s.Kind == dkim.Pass {
			return string(s.Kind)
		}
	}
	return string(v.DKIM[0].Kind)
}

// mayVouch reports whether we may sign a message for name, a domain of ours. For an author who might
// be taken for one of that organisation we may if it is proven who wrote the message: else the
// signature would make a forgery genuine.
func (f *forwarder) mayVouch(from address.Address, name string) bool {
	switch {
	case f.proven:
		return true
	case f.world.Get(from.Domain) != nil, from.Domain == name:
		return false
	case f.related == nil:
		return lastLabels(from.Domain) != lastLabels(name)
	}
	return !f.related(from.Domain, name)
}
