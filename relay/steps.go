package relay

import (
	"context"

	"relayd/delivery"
	"relayd/follow"
	"relayd/reply"
)

// withSteps has the connections that are made under ctx told to who follows the message.
func (out *Outbound) withSteps(ctx context.Context, id string) context.Context {
	if out.Follow == nil || !out.Follow.Followed(id) {
		return ctx
	}
	return delivery.WithSteps(ctx, func(s delivery.Step) {
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
	})
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
