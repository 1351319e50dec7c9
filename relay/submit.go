package relay

import (
	"context"
	"errors"
	"strings"

	"relayd/address"
	"relayd/follow"
	"relayd/message"
	"relayd/reply"
	"relayd/srs"
)

// A Submission is the envelope of a message that a program of this machine hands over.
type Submission struct {
	User       address.Address // who is taken to have logged in; of a hosted domain
	Rule       func(as address.Address) error
	Sender     address.Address // reverse-path; zero is "<>"
	Recipients []Recipient     // one at least
	Return     string          // DSN RET: "", "FULL" or "HDRS"
	EnvelopeID string          // DSN ENVID
}

// Begin opens the transaction of a Submission, so that its ID is known before anything can happen to it.
func (s *Submission) Begin() *Transaction {
	tx := NewTransaction(&Client{User: s.User, Submission: true, Local: true, Rule: s.Rule})
	tx.Sender, tx.UTF8, tx.Return, tx.EnvelopeID = s.Sender, true, s.Return, s.EnvelopeID
	return tx
}

// Submit takes a message as if User had logged in and submitted it, all recipients or none, and notes
// refusals in the log. The error holds the *reply.Reply that a session would have given. The caller
// closes m. tx is that of s.Begin.
func (in *Inbound) Submit(ctx context.Context, s *Submission, tx *Transaction, m *message.Message) error {
	err := in.submit(ctx, s, tx, m)
	if err != nil {
		r := reply.From(err)
		attrs := append(tx.LogAttrs(), "reply", r.String())
		if r.Cause != nil {
			attrs = append(attrs, "cause", r.Cause.Error())
		}
		in.Log.Info("refused", attrs...)
		return r
	}
	return nil
}

func (in *Inbound) submit(ctx context.Context, s *Submission, tx *Transaction, m *message.Message) error {
	switch {
	case in.Domains().Get(s.User.Domain) == nil:
		return reply.New(550, "5.7.1", "%s is not hosted here, so <%s> cannot send: `relay-util domain-list` shows the domains that are", s.User.Domain, s.User)
	case len(s.Recipients) == 0:
		return reply.New(554, "5.5.1", "There is no recipient")
	case len(s.Recipients) > in.Config.Limits.Recipients:
		return reply.New(550, "5.5.3", "There are %d recipients, and one message may have %d", len(s.Recipients), in.Config.Limits.Recipients)
	}
	if err := in.Mail(ctx, tx); err != nil {
		return err
	}
	for _, r := range s.Recipients {
		if err := in.Recipient(ctx, tx, r); err != nil {
			return err
		}
	}
	_, err := in.Accept(ctx, tx, m)
	return err
}

// mayUse returns the refusal if who submits tx may not send as an address.
func (tx *Transaction) mayUse(as address.Address, where string) error {
	user, rule := tx.Client.User, tx.Client.Rule
	if rule == nil {
		return mayUse(tx.world, user, as, where)
	}
	switch d := tx.world.Get(as.Domain); {
	case d == nil:
		return reply.New(550, "5.7.1", "<%s> cannot be sent from (%s): %s is not hosted here", as, where, as.Domain)
	case d.Broken != nil:
		return errUnavailable
	case srs.IsSRS(as.Local): // a bounce to it would go to a stranger
		return reply.New(550, "5.7.1", "<%s> cannot be sent from (%s): it is an address for bounces", as, where)
	}
	return rule(as)
}

// ReadError is the reply to what message.Read has found wrong with a message of at most limit bytes.
func ReadError(err error, limit int64) error {
	_, storage := errors.AsType[*message.StorageError](err)
	switch {
	case storage:
		return reply.New(452, "4.3.1", "There is no room for the message now, please try again later").Because(err)
	case errors.Is(err, message.ErrTooLarge):
		return reply.New(552, "5.3.4", "The message is larger than the %d bytes that are taken here", limit)
	case errors.Is(err, message.ErrHeaderTooLarge), errors.Is(err, message.ErrTooManyFields):
		return reply.New(552, "5.3.4", "The header of the message is too large").Because(err)
	case errors.Is(err, message.ErrLoneDot):
		return reply.New(550, "5.6.0", "The message holds %v: send what is no text encoded in base64", err)
	}
	return err
}

// Signatures are the DKIM signatures that a message leaves with.
func Signatures(m *message.Message) []follow.Signature {
	h, err := message.ReadHeader(m.Reader())
	if err != nil {
		return nil
	}
	var list []follow.Signature
	for _, v := range h.Values("DKIM-Signature") {
		tags := map[string]string{}
		for tag := range strings.SplitSeq(v, ";") {
			name, value, _ := strings.Cut(tag, "=")
			tags[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
		list = append(list, follow.Signature{Domain: tags["d"], Selector: tags["s"], Algorithm: tags["a"]})
	}
	return list
}
