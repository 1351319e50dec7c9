package relay

import (
	"context"
	"io"

	"relayd/address"
	"relayd/delivery"
	"relayd/filter"
	"relayd/message"
	"relayd/queue"
	"relayd/reply"
)

// notListed is the refusal of a client that is in a DNS list. It is given for each recipient and not
// before, so that the log says whose mail it was, and never for postmaster and abuse: who is listed
// by mistake must be able to tell.
func (in *Inbound) notListed(ctx context.Context, tx *Transaction, to address.Address) error {
	if tx.Client.Submission || isPostmaster(to.Local) {
		return nil
	}
	if !tx.looked {
		tx.looked, tx.listing = true, in.Filter.Listed(ctx, tx.Client.IP)
	}
	l := tx.listing
	if l == nil {
		return nil
	}
	reason := ""
	if l.Reason != "" {
		reason = " (" + l.Reason + ")"
	}
	return reply.New(550, "5.7.1", "Mail from %s is not taken, for %s lists that address%s: have it taken off that list, or write to <postmaster@%s>",
		tx.Client.IP, l.List, reason, to.Domain)
}

// filtered asks the filters about a stranger's message that is not refused for other reasons. What
// is only for postmaster and abuse is theirs to read: reports of spam have it in them.
func (in *Inbound) filtered(ctx context.Context, tx *Transaction, m *message.Message) error {
	fm := &filter.Message{
		ID: tx.ID, IP: tx.Client.IP, Name: tx.clientName(), Helo: tx.Client.Helo, Sender: tx.Sender, Recipients: tx.addresses(),
		Header: m.Header, Open: func() io.Reader { return m.Original() }, Size: m.OriginalSize(),
		Source: filter.Source(tx.Client.IP, ""),
	}
	if v := tx.verdict; v != nil {
		fm.Strict, fm.Source = v.Quarantine(), filter.Source(tx.Client.IP, v.Shown())
	}
	tx.source = fm.Source
	if tx.forPostmaster() {
		return nil
	}
	var refusal error
	tx.said, refusal = in.Filter.Judge(ctx, fm)
	return refusal
}

// forPostmaster reports whether the message is for nobody but postmaster and abuse.
func (tx *Transaction) forPostmaster() bool {
	for _, a := range tx.accepted {
		if !isPostmaster(a.Address.Local) {
			return false
		}
	}
	return true
}

// score remembers what a destination thinks of a message against where it came from. That it says
// so again, when the message is tried again, is nothing new.
func (out *Outbound) score(w *queue.Work, indexes []int, results []delivery.Result) {
	refused, taken := false, false
	for k, i := range indexes {
		v := results[k].Verdict
		refused = refused || v.Suspect && w.Envelope.Recipients[i].Class != v.Class.String()
		taken = taken || results[k].Reply.Positive()
	}
	switch {
	case refused:
		out.Filter.Refused(w.Envelope.Source)
	case taken:
		out.Filter.Taken(w.Envelope.Source)
	}
}
