// Package relay is the way of a message: who may send it, where it goes, what is put in front of
// it, and how it enters and leaves the queue. The server on one side and the client on the other
// know SMTP; here is what this relay does with mail.
//
// Mail of strangers is taken for hosted addresses only, and only if SPF, DKIM and DMARC do not show
// that it is forged. It is forwarded to where the address leads, unchanged but for fields in front,
// under a reverse-path of ours (SRS), so that it passes SPF there; a forgery of ours is refused, for
// it would leave here as genuine. Mail of users who logged in goes anywhere, signed by the domain of
// its From, under an address that the user may use. An address of a hosted domain is always looked
// up here and never leaves by its MX.
package relay

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"syscall"
	"time"
	"unicode"

	"relayd/bans"
	"relayd/config"
	"relayd/dkim"
	"relayd/domains"
	"relayd/filter"
	"relayd/follow"
	"relayd/mailauth"
	"relayd/message"
	"relayd/queue"
	"relayd/reply"
	"relayd/srs"
	"relayd/users"
)

// Options are what both halves of the relay need. All are required but Accepted and Follow.
type Options struct {
	Config   *config.Config
	Domains  func() *domains.Set
	SRS      *srs.Rewriter
	Checker  *mailauth.Checker // of what strangers send
	Filter   *filter.Filter    // of the same
	Verifier *users.Verifier
	Bans     *bans.Book // of those who guess passwords
	Now      func() time.Time
	Log      *slog.Logger
	Accepted func(took time.Duration) // told of each message, from its last octet to the answer; may be nil
	Follow   *follow.Book             // who looks on while a message is delivered; nil: nobody does
}

// An Inbound takes mail in. It is the Relay of smtpd, and safe for concurrent use.
type Inbound struct {
	Options
	queue  *queue.Queue
	limits *limits
}

// NewInbound makes an Inbound that puts what it takes into q.
func NewInbound(opt Options, q *queue.Queue) *Inbound {
	return &Inbound{opt, q, newLimits(opt.Now)}
}

// Answers that are given in several places.
var (
	errUnavailable = reply.New(451, "4.3.0", "Mail for this domain cannot be taken at the moment, please try again later")
	errNoRelay     = "Mail for %s is not taken here: this server relays for its own users only, who must log in on port 587 or 465"
	errUnknown     = "There is no address <%s> here, please check it for typing errors"
)

// Mail judges the reverse-path. That of a user must be one that the user may use, or "<>"; that
// of a stranger says nothing that could be believed.
func (in *Inbound) Mail(_ context.Context, tx *Transaction) error {
	tx.world = in.Domains()
	if !tx.Client.Submission || tx.Sender.IsNull() {
		return nil
	}
	return tx.mayUse(tx.Sender, "MAIL FROM")
}

// Recipient judges a forward-path and notes where it leads.
func (in *Inbound) Recipient(ctx context.Context, tx *Transaction, r Recipient) error {
	if !tx.Client.Submission && !in.limits.mayAsk(tx.Client.IP) {
		return reply.New(450, "4.7.1", "You have tried too many addresses within the hour that are not here, please try <%s> later", r.Address)
	}
	reversing := srs.IsSRS(r.Address.Local) && RewritesWith(in.Config, tx.world, r.Address.Domain)
	if reversing && !in.limits.mayReverse(tx.Client.IP) {
		return reply.New(450, "4.2.1", "You have tried too many forged addresses of this server within the hour, please try <%s> later", r.Address)
	}
	where, err := in.locate(tx.world, tx.Sender, r.Address)
	if errors.Is(err, srs.ErrForged) {
		in.limits.forged(tx.Client.IP)
	}
	if err != nil {
		if !tx.Client.Submission && reply.From(err).Enhanced == "5.1.1" {
			in.limits.missed(tx.Client.IP)
		}
		return err
	}
	if where.remote && !tx.Client.Submission {
		return reply.New(550, "5.7.1", errNoRelay, r.Address.Domain)
	}
	if err := in.notListed(ctx, tx, r.Address); err != nil {
		return err
	}
	if where.catchAll && !tx.Client.Submission && !in.limits.mayTry(tx.Client.IP, r.Address, in.Config.Limits.CatchallAddresses) {
		return reply.New(450, "4.2.1", "You have tried too many different addresses of this server within the hour, please try <%s> later", r.Address)
	}
	if err := tx.sameMode(accepted{Recipient: r, destination: where}); err != nil {
		return err
	}
	tx.accepted = append(tx.accepted, accepted{Recipient: r, destination: where})
	return nil
}

// Accept takes responsibility for a message, or says why not. Mail of strangers is tried at once, for
// as long as answer_within says, so that they hear from the destination itself.
func (in *Inbound) Accept(ctx context.Context, tx *Transaction, m *message.Message) (*reply.Reply, error) {
	began := in.Now()
	err := in.inLoop(tx, m.Header)
	if err != nil {
		return nil, err
	}
	if tx.Client.Submission {
		err = in.completeSubmission(tx, m)
	} else {
		err = in.authenticate(ctx, tx, m)
	}
	if err != nil {
		return nil, err
	}
	if limit := in.messagesPerHour(tx); tx.Client.Submission && !in.limits.maySend(tx.Client.User, limit) {
		return nil, reply.New(450, "4.7.1", "<%s> has sent the %d messages that are allowed within an hour, please try again later", tx.Client.User, limit)
	}
	e, err := in.envelope(ctx, tx, m)
	if err != nil {
		return nil, err
	}
	how, err := in.take(ctx, tx, e, m)
	if err != nil {
		return nil, err
	}
	in.Log.Info("accepted", append(tx.LogAttrs(), "size", m.OriginalSize(), "message_id", m.Header.Get("Message-ID"), "copies", len(e.Recipients), "how", how)...)
	if in.Accepted != nil {
		in.Accepted(max(0, in.Now().Sub(began)))
	}
	return reply.New(250, "2.0.0", "Ok: %s as %s", how, e.ID), nil
}

// messagesPerHour is how many messages the user may send, 0 for no limit.
func (in *Inbound) messagesPerHour(tx *Transaction) int {
	if d := tx.world.Get(tx.Client.User.Domain); d != nil && d.Settings != nil {
		if n, own := d.Settings.MessagesPerHour[strings.ToLower(tx.Client.User.Local)]; own {
			return n
		}
	}
	return in.Config.Limits.UserMessagesPerHour
}

// take forwards the message or puts it into the queue, and says which.
func (in *Inbound) take(ctx context.Context, tx *Transaction, e *queue.Envelope, m *message.Message) (how string, err error) {
	within := time.Duration(in.Config.Forward.AnswerWithin)
	if tx.Client.Submission || within == 0 {
		if err := in.queue.Add(e, m.Reader()); err != nil {
			return "", storeReply(err)
		}
		return "queued", nil
	}
	m.Share()
	e.Size = m.Size()
	answer, err := in.queue.Forward(ctx, queue.Offer{
		Envelope: e,
		Open:     func() (io.ReadCloser, error) { return io.NopCloser(m.Reader()), nil },
		Done:     func() { m.Close() },
	}, within)
	switch {
	case err != nil:
		return "", storeReply(err)
	case answer.Refused != nil:
		return "", answer.Refused
	case answer.Forwarded:
		return "forwarded", nil
	}
	return "queued", nil
}

// storeReply tells a full disk, which passes, from one that is broken.
func storeReply(err error) error {
	if errors.Is(err, queue.ErrFull) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return reply.New(452, "4.3.1", "There is no room for the message now, please try again later").Because(err)
	}
	return reply.Internal(err)
}

// received is our trace field. Where a user was when submitting is nobody's business.
func (in *Inbound) received(tx *Transaction) string {
	t := message.Trace{By: in.Config.Hostname, Protocol: tx.protocol(), ID: tx.ID, TLS: tx.Client.TLS, At: in.Now()}
	if tx.Client.User.IsNull() {
		t.Helo, t.IP, t.Name = tx.Client.Helo, tx.Client.IP.String(), tx.clientName()
	}
	if len(tx.accepted) == 1 {
		t.For = tx.accepted[0].Address.String()
	}
	return t.Field()
}

// completeSubmission checks the author, adds what the message lacks, and signs it.
func (in *Inbound) completeSubmission(tx *Transaction, m *message.Message) error {
	from, err := m.Header.From()
	if err != nil {
		return reply.New(550, "5.7.1", "%s", sentence(err))
	}
	if err := tx.mayUse(from, "From"); err != nil {
		return err
	}
	m.LeaveOut(func(header []byte) []byte { return mailauth.RemoveResults(header, in.Config.Hostname) })
	m.Prepend(m.Complete(tx.ID, from.Domain, in.Now()))
	signer := from.Domain
	if tx.world.Get(signer) == nil {
		signer = tx.Client.User.Domain
	}
	signature, err := in.sign(tx.world, signer, m.Reader())
	if err != nil {
		return signReply(err)
	}
	m.Prepend(in.received(tx))
	m.Prepend(signature)
	return nil
}

// sentence is an error that is fit to be shown, as a reply has it.
func sentence(err error) string {
	text := []rune(err.Error())
	text[0] = unicode.ToUpper(text[0])
	return string(text)
}

// sign returns the DKIM-Signature fields of all keys of a domain, "" where it has none. An error
// is never a reason to go on unsigned.
func (opt *Options) sign(world *domains.Set, domain string, msg io.Reader) (string, error) {
	d := world.Get(domain)
	if d == nil || len(d.Keys) == 0 {
		return "", nil
	}
	return dkim.Sign(msg, d.Keys, opt.Now())
}

// signReply tells a header that nobody could sign from a key that does not work.
func signReply(err error) error {
	if errors.Is(err, dkim.ErrHeader) {
		return reply.New(552, "5.3.4", "The header of the message is too large to be signed").Because(err)
	}
	return reply.Internal(err)
}

// Sign signs a message of the relay's own, such as a DSN.
func (opt *Options) Sign(domain string, msg io.Reader) (string, error) {
	return opt.sign(opt.Domains(), domain, msg)
}
