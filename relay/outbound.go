package relay

import (
	"context"
	"io"
	"strings"

	"relayd/delivery"
	"relayd/domains"
	"relayd/message"
	"relayd/queue"
	"relayd/reply"
)

// An Outbound makes the queue's attempts: it is its Deliverer, and safe for concurrent use.
type Outbound struct {
	Options
	client  *delivery.Client
	paces   paces
	notices notices
	replies replies
}

// NewOutbound makes an Outbound that sends through c.
func NewOutbound(opt Options, c *delivery.Client) *Outbound {
	return &Outbound{Options: opt, client: c, paces: paces{mailboxes: map[string]*pace{}}, notices: notices{list: map[subject]notice{}}, replies: replies{last: map[string]Said{}}}
}

// Warnings are what the administrator should know, each in a sentence or two: what servers have
// asked for, until they take mail again.
func (out *Outbound) Warnings() []string { return out.notices.warnings(out.Now()) }

// Group implements queue.Deliverer.
func (out *Outbound) Group(r *queue.Recipient) string {
	if w := out.way(out.Domains(), r); w.group != "" {
		return w.group
	}
	return out.client.Group(r.Address.Domain)
}

// Learn implements queue.Deliverer.
func (out *Outbound) Learn(ctx context.Context, r *queue.Recipient) {
	if out.way(out.Domains(), r).group == "" {
		out.client.Learn(ctx, r.Address.Domain)
	}
}

// Deliver implements queue.Deliverer.
func (out *Outbound) Deliver(ctx context.Context, w *queue.Work) []queue.Outcome {
	world := out.Domains()
	ctx = out.withSteps(ctx, w.Envelope.ID)
	outcomes := make([]queue.Outcome, len(w.Indexes))
	copies := map[string]*transfer{}
	var order []*transfer
	for n, i := range w.Indexes {
		r := &w.Envelope.Recipients[i]
		switch by := out.way(world, r); by.kind {
		case byProgram:
			outcomes[n] = outcome(delivery.Pipe(ctx, r.Pipe, out.message(w, []int{i})))
		case byAlias:
			outcomes[n] = out.expand(world, w, r)
		default:
			if until := out.paces.take(out.paced(r), out.Now()); !until.IsZero() && !r.Asked {
				outcomes[n] = queue.Outcome{State: queue.Waiting, Until: until}
				continue
			}
			key := by.group + "\x00" + r.Address.Domain + "\x00" + r.ReturnPath.String() + "\x00" + r.Fields
			if copies[key] == nil {
				copies[key] = &transfer{route: by.route}
				order = append(order, copies[key])
			}
			copies[key].places = append(copies[key].places, n)
		}
	}
	for _, t := range order {
		indexes := make([]int, len(t.places))
		for k, n := range t.places {
			indexes[k] = w.Indexes[n]
		}
		results := out.client.Deliver(ctx, t.route, out.message(w, indexes))
		out.sendRewritten(ctx, w, t, results)
		out.score(w, indexes, results)
		for k, n := range t.places {
			outcomes[n] = outcome(results[k])
			if results[k].Until.IsZero() {
				out.heed(w, &w.Envelope.Recipients[indexes[k]], results[k])
			}
		}
	}
	return outcomes
}

// A transfer is for the recipients of one domain that get the same bytes by the same way.
type transfer struct {
	route  delivery.Route
	places []int // in Work.Indexes
}

// message is the transaction for recipients that get the same copy.
func (out *Outbound) message(w *queue.Work, indexes []int) *delivery.Message {
	e := w.Envelope
	first := e.Recipients[indexes[0]]
	m := &delivery.Message{
		ReturnPath: first.ReturnPath, Size: e.Size + int64(len(first.Fields)),
		EightBit: e.EightBit, UTF8: e.UTF8, RequireTLS: e.RequireTLS, TLSOptional: e.TLSOptional,
		Body: withFields(first.Fields, w.Body),
	}
	if first.Alias.IsNull() { // how a forwarded copy fares is not the sender's to learn from others
		m.Return, m.EnvelopeID = e.Return, e.EnvelopeID
	}
	for _, i := range indexes {
		r := e.Recipients[i]
		to := delivery.Recipient{Address: r.Address}
		if r.Alias.IsNull() {
			to.Original, to.Notify = r.Original, r.Notify
		}
		m.Recipients = append(m.Recipients, to)
		m.Insist = m.Insist || r.Asked
	}
	return m
}

func withFields(fields string, open func() (io.ReadCloser, error)) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) {
		body, err := open()
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(strings.NewReader(fields), body), body}, nil
	}
}

// outcome says what a delivery result means for the queue.
func outcome(r delivery.Result) queue.Outcome {
	if !r.Until.IsZero() {
		return queue.Outcome{State: queue.Waiting, Until: r.Until}
	}
	states := map[delivery.Fate]queue.State{
		delivery.Later: queue.Waiting, delivery.Accepted: queue.Delivered, delivery.Final: queue.Failed, delivery.Hold: queue.Held,
	}
	o := queue.Outcome{
		State: states[r.Fate()], Reply: r.Reply, Host: r.Host, Reported: r.DSN, TLS: r.TLS.String(),
		Strained: r.Strained, Stop: r.Verdict.Stop, Attempts: r.Verdict.Attempts,
	}
	if r.Verdict != (delivery.Verdict{}) {
		o.Class = r.Verdict.Class.String()
	}
	return o
}

// expand looks a hosted recipient up again: DSNs to our own users, postmaster mail that was held,
// and mail that was queued before its domain was hosted here.
func (out *Outbound) expand(world *domains.Set, w *queue.Work, r *queue.Recipient) queue.Outcome {
	where, err := out.locate(world, w.Envelope.Sender, r.Address)
	if err == nil && where.held {
		return queue.Outcome{State: queue.Held, Reply: reply.New(451, "4.2.1", "No alias and no `postmaster` in relayd.toml takes mail for %s", r.Address)}
	}
	if err == nil && where.remote {
		return queue.Outcome{State: queue.Failed, Reply: reply.New(550, "5.1.1", errUnknown, r.Address)}
	}
	var into []queue.Recipient
	if err == nil {
		into, err = out.copies(world, w, r, where)
	}
	if err != nil {
		return outcome(delivery.Result{Reply: reply.From(err)})
	}
	return queue.Outcome{Into: into}
}

func (out *Outbound) copies(world *domains.Set, w *queue.Work, r *queue.Recipient, where destination) ([]queue.Recipient, error) {
	body, err := w.Body()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	header, err := message.ReadHeader(body)
	if err != nil {
		return nil, err
	}
	f := &forwarder{Options: &out.Options, world: world, sender: w.Envelope.Sender, own: !w.Envelope.User.IsNull(), header: header}
	f.open = func() (io.Reader, error) {
		again, err := w.Body()
		if err != nil {
			return nil, err
		}
		defer again.Close()
		text, err := io.ReadAll(again)
		return strings.NewReader(string(text)), err
	}
	into, err := f.copies(r.Address, where)
	for i := range into {
		into[i].Original, into[i].Notify = r.Original, r.Notify
	}
	return into, err
}
