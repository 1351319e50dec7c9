package delivery

import (
	"context"
	"errors"
	"time"

	"relayd/mtasts"
)

// maxAddresses bounds one attempt, in addresses and in hosts without any: with every one of them
// hanging at connect it ends in minutes.
const maxAddresses = 10

// longestAttempt is after what time no further address is begun with: with every one of them
// falling silent after EHLO, where 5 minutes are to be waited each, it would take an hour.
const longestAttempt = 10 * time.Minute

// An attempt is a message on its way: what was decided, and for whom.
type attempt struct {
	message  *Message
	results  []Result             // by recipient; without a Reply it is not decided yet
	strained bool                 // an address was lost to strain
	policy   func() mtasts.Policy // of the domain
	batch    int                  // how many recipients a transaction may name, as a server has shown; 0: none has
	begun    int                  // transactions
}

func (c *Client) newAttempt(ctx context.Context, route Route, m *Message) *attempt {
	return &attempt{message: m, results: make([]Result, len(m.Recipients)), policy: c.policyOf(ctx, route)}
}

// undecided are the places of the recipients who have no reply.
func (a *attempt) undecided() []int {
	var places []int
	for i := range a.results {
		if a.results[i].Reply == nil {
			places = append(places, i)
		}
	}
	return places
}

// stopped is the first result of those at places that ends the attempt for all; nil if there is none.
func (a *attempt) stopped(places []int) *Result {
	for _, i := range places {
		if a.results[i].Verdict.stops() {
			return &a.results[i]
		}
	}
	return nil
}

// settle gives the recipients at places the same result.
func (a *attempt) settle(places []int, r Result) {
	for _, i := range places {
		a.results[i] = r
	}
}

// Deliver makes one attempt along route and returns one result for each recipient, in order.
// It returns within seconds after ctx ends, with temporary results for what was not finished.
func (c *Client) Deliver(ctx context.Context, route Route, m *Message) []Result {
	a := c.newAttempt(ctx, route, m)
	rest := c.try(ctx, route, a)
	rest.Strained = a.strained
	a.settle(a.undecided(), rest)
	return a.results
}

// tellMore chooses between the reasons of two addresses: that the last one cannot be reached says
// less than what went wrong with a better one. A permanent reason is one only if all addresses have
// one, for another may still do better some day. That our source address is wrong is one only if
// nothing went out from any.
func tellMore(before, last Result) Result {
	switch {
	case before.Host == "" || before.Reply.Permanent() || isForeign(before.Reply):
		return last
	case errors.Is(last.Reply, errUnreachable), isForeign(last.Reply), last.Reply.Permanent():
		return before
	}
	return last
}

// tryAddress delivers over a kept connection or a new one. After an error the next address may do
// better for those who are still undecided; without one, nobody is.
func (c *Client) tryAddress(ctx context.Context, route Route, t target, a *attempt) (err error) {
	undecided := a.undecided()
	if len(undecided) == 0 {
		return nil
	}
	next := a.message.Recipients[undecided[0]].Address.Domain
	if s := c.pool.get(newPoolKey(route, t), next); s != nil {
		// A kept connection that was closed meanwhile is nobody's fault and proves nothing; nor
		// does one that hangs, for what stands between may have forgotten it. One that works does.
		tellStep(ctx, t, Step{Kept: true, TLS: s.tls})
		if silence, err := c.transact(ctx, s, a); err != nil {
			c.opt.Log.Debug("kept connection is gone", "host", t.String(), "error", err.Error())
		} else if silence == nil {
			c.settle(t, nil, false)
		}
	}
	if len(a.undecided()) == 0 {
		return nil
	}
	if err := c.mayLogIn(route); err != nil {
		return err
	}
	if r := c.admit(t); r != nil && !a.message.Insist {
		return r
	}
	var silence error
	defer func() { c.settle(t, silence, ctx.Err() != nil) }()
	silence, err = c.tryAnew(ctx, route, t, a)
	return err
}

// tryAnew delivers over new connections: it takes more than one where the server limits the
// transactions of a connection. silence is what says that the server is to be left alone, if it
// is: not always an error, for after the final dot everybody has a result.
func (c *Client) tryAnew(ctx context.Context, route Route, t target, a *attempt) (silence, err error) {
	for len(a.undecided()) > 0 {
		s, err := c.connect(ctx, route, t)
		if err != nil {
			return err, err
		}
		silence, err = c.transact(ctx, s, a)
		if silence != nil || err != nil {
			return silence, err
		}
	}
	return nil, nil
}

// transact sends to the undecided over s and puts s back into the pool, or closes it. silence is
// that the server did not answer in time, which is not always an error.
func (c *Client) transact(ctx context.Context, s *session, a *attempt) (silence, err error) {
	stop := context.AfterFunc(ctx, func() { s.conn.Close() })
	err = s.send(a)
	silence = s.hung // once s is in the pool it is somebody else's
	if !stop() || err != nil || !s.reusable() || !c.pool.put(s) {
		s.close()
	}
	return silence, err
}
