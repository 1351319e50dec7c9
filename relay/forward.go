package relay

import (
	"context"
	"errors"
	"io"
	"strings"

	"relayd/address"
	"relayd/aliases"
	"relayd/config"
	"relayd/domains"
	"relayd/message"
	"relayd/queue"
	"relayd/reply"
	"relayd/srs"
)

// addresses are the recipients as the client named them.
func (tx *Transaction) addresses() []address.Address {
	list := make([]address.Address, len(tx.accepted))
	for i, a := range tx.accepted {
		list[i] = a.Address
	}
	return list
}

// envelope turns a transaction into what the queue keeps: a recipient for every copy.
func (in *Inbound) envelope(ctx context.Context, tx *Transaction, m *message.Message) (*queue.Envelope, error) {
	e := &queue.Envelope{
		ID: tx.ID, Received: in.Now(), Sender: tx.Sender, User: tx.Client.User, Source: tx.source,
		Authentic: tx.authentic(), EightBit: m.EightBit,
		Return: tx.Return, EnvelopeID: tx.EnvelopeID,
		RequireTLS: tx.RequireTLS, TLSOptional: !tx.RequireTLS && tlsIsOptional(m.Header),
	}
	f := &forwarder{Options: &in.Options, world: tx.world, sender: tx.Sender, own: !tx.Client.User.IsNull(),
		proven: tx.proven(), spfOnly: tx.verdict != nil && tx.verdict.PassedBySPFOnly(),
		related: func(a, b string) bool { return in.related(ctx, a, b) },
		header:  m.Header, open: func() (io.Reader, error) { return m.Original(), nil }}
	copies := map[string]int{} // place in e.Recipients by target
	for _, a := range tx.accepted {
		rcpts, err := f.copies(a.Address, a.destination)
		if err != nil {
			return nil, err
		}
		for _, r := range rcpts {
			r.Original, r.Notify = a.Original, a.Notify
			if at, ok := copies[copyKey(r)]; ok {
				if !r.Mailbox {
					e.Recipients[at].Fields = f.deliveredTo(r.Alias) + e.Recipients[at].Fields
				}
				continue
			}
			copies[copyKey(r)] = len(e.Recipients)
			e.Recipients = append(e.Recipients, r)
		}
	}
	shareBodies(e.Recipients)
	e.UTF8 = tx.UTF8 && needsUTF8(e, m.Header)
	return e, nil
}

// toldApart is how many copies for one destination tell, each in fields of its own, for which address
// they are: so many times it takes the message. What is for more goes there as fewer bodies.
const toldApart = 10

// shareBodies leaves out what tells copies apart where there are too many of them for a destination: to whom
// they go at first, and for which address they came only where that is not enough. By the latter a loop is
// seen that forks into so many copies, before they have become millions.
func shareBodies(list []queue.Recipient) {
	together := map[string][]*queue.Recipient{}
	for i := range list {
		if r := &list[i]; r.Fields != "" && len(r.Pipe) == 0 {
			key := r.Address.Domain + " " + r.ReturnPath.String() + " " + strings.Join(r.Via, "/")
			together[key] = append(together[key], r)
		}
	}
	for _, copies := range together {
		for _, name := range []string{"X-Forwarded-To", "Delivered-To"} {
			if bodies(copies) <= toldApart {
				break
			}
			for _, r := range copies {
				r.Fields = without(name, r.Fields)
			}
		}
	}
}

// bodies counts how many different ones copies for one destination are.
func bodies(copies []*queue.Recipient) int {
	different := map[string]bool{}
	for _, r := range copies {
		different[r.Fields] = true
	}
	return len(different)
}

// copyKey is equal for copies that would be the same message in the same mailbox.
func copyKey(r queue.Recipient) string {
	if r.Mailbox {
		return "=" + r.Address.Key()
	}
	return r.Address.Local + "@" + r.Address.Domain + " " + strings.Join(r.Via, "/") + strings.Join(r.Pipe, " ")
}

// needsUTF8: RFC 6531 is needed for what has non-ASCII addresses or header fields, and only then.
func needsUTF8(e *queue.Envelope, h message.Header) bool {
	if !h.ASCII() || !e.Sender.ASCII() {
		return true
	}
	for _, r := range e.Recipients {
		if !r.Address.ASCII() || !r.ReturnPath.ASCII() {
			return true
		}
	}
	return false
}

// tlsIsOptional: "TLS-Required: No" (RFC 8689). Twice it means nothing.
func tlsIsOptional(h message.Header) bool {
	return h.Count("TLS-Required") == 1 && strings.EqualFold(strings.TrimSpace(h.Get("TLS-Required")), "no")
}

// A forwarder makes the copies of one message.
type forwarder struct {
	*Options
	world  *domains.Set
	sender address.Address
	own    bool // submitted by a user of ours: the sender is not rewritten
	proven bool // the message is from its author's domain
	// spfOnly says that it passed DMARC, but will not pass it again once it has left here.
	spfOnly bool
	related func(a, b string) bool // domains of one organisation; nil: all that might be
	header  message.Header
	open    func() (io.Reader, error)

	signatures  map[string]string          // by domain, made when first needed
	returnPaths map[string]address.Address // by SRS domain, for a token of it is stored
}

// copies makes the recipients for an address that leads to where.
func (f *forwarder) copies(to address.Address, where destination) ([]queue.Recipient, error) {
	switch {
	case where.remote:
		return []queue.Recipient{{Address: to, ReturnPath: f.sender}}, nil
	case where.held:
		return []queue.Recipient{{Address: to, ReturnPath: f.sender, Status: queue.Status{
			State: queue.Held, LastReply: "held: no alias and no `postmaster` in relayd.toml takes this"}}}, nil
	case !where.back.IsNull():
		return []queue.Recipient{{Address: where.back, Alias: to}}, nil
	}
	var list []queue.Recipient
	for _, t := range where.targets {
		if t.Mailbox {
			list = append(list, f.stored(to, t))
			continue
		}
		r, err := f.forwarded(to, t, where.domain)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, nil
}

// stored is the copy for a mailbox. It ends its way here, so the sender stays who it is, and the
// fields that tell where it came from are the mailbox server's to add.
func (f *forwarder) stored(to address.Address, t aliases.Final) queue.Recipient {
	user := t.Address
	user.Local += t.Suffix
	return queue.Recipient{Address: user, Mailbox: true, ReturnPath: f.sender, Alias: to}
}

// forwarded is the copy for a target of an address in d.
func (f *forwarder) forwarded(to address.Address, t aliases.Final, d *domains.Domain) (queue.Recipient, error) {
	r := queue.Recipient{Address: t.Address, Via: t.Via, Pipe: t.Pipe, Alias: to}
	r.Rewrite = f.spfOnly && settingsOf(d).OnDMARCRefusal == config.RefusalRewrite
	if len(t.Pipe) > 0 {
		r.Address = to
	}
	signature, err := f.signature(d)
	if err != nil {
		return r, err
	}
	r.Fields = f.fields(to, t) + signature
	r.ReturnPath, err = f.returnPath(d)
	return r, err
}

// returnPath is under what reverse-path copies for a hosted domain leave: a stranger's sender
// would fail SPF at the destination, so it is replaced by one of ours that leads back to it.
func (f *forwarder) returnPath(d *domains.Domain) (address.Address, error) {
	if f.own || f.sender.IsNull() || d == nil {
		return f.sender, nil
	}
	name := f.srsDomain(d)
	if a, ok := f.returnPaths[name]; ok {
		return a, nil
	}
	a, err := f.SRS.Forward(f.sender, name, f.Now())
	if errors.Is(err, srs.ErrTooLong) {
		return a, reply.New(550, "5.1.7", "The sender's address is too long to be forwarded").Because(err)
	}
	if err != nil {
		return a, storeReply(err)
	}
	if f.returnPaths == nil {
		f.returnPaths = map[string]address.Address{}
	}
	f.returnPaths[name] = a
	return a, nil
}

// signature is ours for a forwarded message, in the name of the domain that its reverse-path is
// in: whoever did not sign is then authenticated as forwarded by us.
func (f *forwarder) signature(d *domains.Domain) (string, error) {
	if f.own || d == nil {
		return "", nil
	}
	name := f.srsDomain(d)
	if s, ok := f.signatures[name]; ok {
		return s, nil
	}
	if from, err := f.header.From(); err != nil || !f.mayVouch(from, name) {
		return "", nil
	}
	msg, err := f.open()
	if err != nil {
		return "", reply.Internal(err)
	}
	s, err := f.sign(f.world, name, msg)
	if err != nil {
		return "", signReply(err)
	}
	if f.signatures == nil {
		f.signatures = map[string]string{}
	}
	f.signatures[name] = s
	return s, nil
}

// fields are put in front of one copy: filters at the destination know by them for which address
// the mail was.
func (f *forwarder) fields(to address.Address, t aliases.Final) string {
	fields := f.deliveredTo(to)
	if !t.Address.IsNull() {
		fields += f.field("X-Forwarded-To", t.Address.String())
	}
	return fields
}

// deliveredTo is the field for an address that led to a copy; several may lead to the same one.
func (f *forwarder) deliveredTo(to address.Address) string {
	return f.field("Delivered-To", to.String())
}

// field is a header field, or nothing if the author's signature covers its name: adding one more
// would break it.
func (f *forwarder) field(name, value string) string {
	if f.header.SignedNames()[strings.ToLower(name)] {
		return ""
	}
	return name + ": " + value + "\r\n"
}
