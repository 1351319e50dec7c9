package relay

import (
	"strings"

	"relayd/message"
	"relayd/reply"
)

// maxReturns is how often a message may have been forwarded from an address when it comes to it again:
// once, for people redirect mail to where it came from. A loop that forks makes more copies each time, of
// which each may be told to the sender, so few must be enough.
const maxReturns = 1

// inLoop returns the refusal of a message that has been through too many servers, or too often through
// this one (RFC 5321 section 6.3), or comes to an address that it was forwarded from more than once.
func (in *Inbound) inLoop(tx *Transaction, h message.Header) error {
	switch {
	case h.Count("Received") > message.MaxReceived:
		return reply.New(554, "5.4.6", "The message has been through more than %d servers: it is in a loop", message.MaxReceived)
	case h.Passes(in.Config.Hostname) > message.MaxPasses:
		return reply.New(554, "5.4.6", "The message has been through %s more than %d times: it is in a loop", in.Config.Hostname, message.MaxPasses)
	}
	returns := map[string]int{}
	for _, to := range h.Values("Delivered-To") {
		returns[strings.ToLower(to)]++
	}
	for _, a := range tx.accepted {
		if a.domain != nil && returns[strings.ToLower(a.Address.String())] > maxReturns {
			return reply.New(554, "5.4.6", "The message has been forwarded from <%s> more than once: it is in a loop", a.Address)
		}
	}
	return nil
}
