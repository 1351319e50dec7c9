package relay

import (
	"context"

	"relayd/delivery"
	"relayd/follow"
	"relayd/queue"
	"relayd/reply"
)

// withSteps has the connections that are made under ctx told to who follows the message.
func (out *Outbound) withSteps(ctx context.Context, id string) context.Context {
	if out.Follow == nil || !out.Follow.Followed(id) {
		return ctx
	}
	return delivery.WithSteps(ctx, func(s delivery.Step) { out.tellStep(id, s) })
}

func (out *Outbound) tellStep(id string, s delivery.Step) {
	e := follow.Event{At: out.Now(), What: follow.Connected, Host: s.Host, Family: "IPv4", TLS: s.TLS.Version, Verified: verified(s.TLS)}
	if s.IPv6 {
		e.Family = "IPv6"
	}
	switch {
	case s.Err != nil:
		e.What, e.Reply = follow.Unreachable, reply.From(s.Err).String()
	case s.Kept:
		e.What = follow.Kept
	case s.Ready:
		e.What = follow.Ready
	}
	out.Follow.Tell(id, e)
}

// verified says by what a server's certificate was found right, "" if by nothing.
func verified(t delivery.TLS) string {
	switch t.By {
	case delivery.ByName:
		return "an authority that this machine trusts"
	case delivery.BySTS:
		return "MTA-STS"
	case delivery.ByDANE:
		return "DANE"
	}
	return ""
}

// Settled passes outcomes on to those who follow a message. It is for queue.Options.Settled.
func (opt *Options) Settled(e *queue.Envelope, indexes []int, outcomes []queue.Outcome) {
	if opt.Follow == nil || !opt.Follow.Followed(e.ID) {
		return
	}
	left := len(indexes) // those of this attempt are told one by one
	for i := range e.Recipients {
		if s := e.Recipients[i].State; s != queue.Delivered && s != queue.Failed {
			left++
		}
	}
	for n, i := range indexes {
		left--
		if len(outcomes[n].Into) > 0 { // it is not known yet who else stands for it
			continue
		}
		event := outcomeEvent(&e.Recipients[i], outcomes[n])
		event.At, event.Left = opt.Now(), left
		opt.Follow.Tell(e.ID, event)
	}
}

func outcomeEvent(r *queue.Recipient, o queue.Outcome) follow.Event {
	e := follow.Event{What: follow.Deferred, Recipient: r.Address.String(), Host: o.Host}
	if o.Reply != nil {
		e.Reply = r.LastReply
	}
	switch {
	case !o.Until.IsZero():
		e.What = follow.Waits
	case r.State == queue.Delivered:
		e.What = follow.Delivered
	case r.State == queue.Failed:
		e.What = follow.Failed
	case r.State == queue.Held:
		e.What = follow.Held
	}
	if r.Scheduled() {
		e.Next = r.Next
	}
	return e
}
