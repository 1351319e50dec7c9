package relay

import (
	"bytes"
	"io"

	"relayd/address"
	"relayd/delivery"
	"relayd/digest"
	"relayd/message"
	"relayd/queue"
	"relayd/srs"
)

// NoteFailures returns what notes in book the failures that a domain's postmaster is to hear of. It is
// for queue.Options.Failed.
func (opt *Options) NoteFailures(book *digest.Book) func(queue.Failure) {
	return func(f queue.Failure) {
		if !opt.isForPostmaster(f) {
			return
		}
		book.Note(digest.Entry{
			ID: f.Envelope.ID, Alias: f.Recipient.Alias, Target: f.Recipient.Address,
			Sender: f.Envelope.Sender, Reply: f.Recipient.LastReply,
		})
	}
}

// isForPostmaster: mail of strangers for the domain that was taken and has failed. What was refused
// while the sender waited was not lost, and most of it is spam; but where the mailbox behind the alias
// is gone, nobody else can mend that.
func (opt *Options) isForPostmaster(f queue.Failure) bool {
	alias := f.Recipient.Alias
	switch d := opt.Domains().Get(alias.Domain); {
	case d == nil || !settingsOf(d).Digest:
		return false
	case !f.Envelope.User.IsNull(), srs.IsSRS(alias.Local): // a bounce on its way back
		return false
	}
	return !f.Refused || f.Recipient.Class == delivery.ClassNoMailbox.String()
}

// SendDigest is a digest.Send. A digest leaves under the null reverse-path, signed by the domain that it
// is about. Where nobody gets the domain's postmaster mail it is dropped, for CheckPostmaster warns of that.
func (in *Inbound) SendDigest(domain string, text []byte) error {
	world, to := in.Domains(), postmasterOf(domain)
	d := world.Get(domain)
	switch {
	case d == nil || !settingsOf(d).Digest:
		return nil
	case d.Broken == nil && !leads(world, to) && adminTargets(in.Config, world) == nil:
		in.Log.Info("a digest is dropped: nobody gets the mail for postmaster", "domain", domain)
		return nil
	}
	where, err := in.locate(world, address.Address{}, to)
	if err != nil {
		return err
	}
	header, err := message.ReadHeader(bytes.NewReader(text))
	if err != nil {
		return err
	}
	signature, err := in.sign(world, domain, bytes.NewReader(text))
	if err != nil {
		return err
	}
	now := in.Now()
	// As a message of the domain's own it is not rewritten, and its own failure is in no digest.
	e := &queue.Envelope{
		ID: queue.NewID(now), Received: now, User: address.Address{Local: "mailer-daemon", Domain: domain},
		EightBit: header.Has("Content-Transfer-Encoding"),
	}
	f := &forwarder{Options: &in.Options, world: world, own: true, header: header}
	if e.Recipients, err = f.copies(to, where); err != nil {
		return err
	}
	e.UTF8 = needsUTF8(e, header)
	if err := in.queue.Add(e, io.MultiReader(bytes.NewReader([]byte(signature)), bytes.NewReader(text))); err != nil {
		return err
	}
	in.Log.Info("digest queued", "id", e.ID, "domain", domain)
	return nil
}
