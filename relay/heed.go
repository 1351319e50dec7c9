package relay

import (
	"relayd/delivery"
	"relayd/queue"
)

// paced names the mailbox that r leads to, with the pace that is known of its provider.
func (out *Outbound) paced(r *queue.Recipient) paced {
	return paced{r.Address.Key(), delivery.MailboxPace(out.Group(r))}
}

// heed does what follows from a result for the recipient's mailbox and for the admin. What follows
// for the message and the group is the queue's.
func (out *Outbound) heed(w *queue.Work, r *queue.Recipient, result delivery.Result) {
	v, now := result.Verdict, out.Now()
	out.replies.note(out.Group(r), Said{result.Reply.String(), now})
	switch {
	case result.Reply.Positive():
		out.paces.lift(r.Address.Key())
		out.notices.clear(out.Group(r))
		out.notices.clear(r.Alias.Key())
	case v.MailboxPerMinute > 0:
		out.paces.slow(r.Address.Key(), v.MailboxPerMinute, now)
	}
	if v.Advice == "" || v.AliasOnly && r.Alias.IsNull() {
		return
	}
	about := out.Group(r)
	if v.AliasOnly {
		about = r.Alias.Key()
	}
	if out.notices.note(subject{about, v.Advice}, result.Reply.String(), now) {
		out.Log.Warn("a server's reply is for the admin", "id", w.Envelope.ID, "about", about, "class", v.Class.String(),
			"host", result.Host, "reply", result.Reply.String(), "advice", v.Advice)
	}
}
