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
	client *delivery.Client
}

// NewOutbound makes an Outbound that sends through c.
func NewOutbound(opt Options, c *delivery.Client) *Outbound { return &Outbound{opt, c} }

// Group implements queue.Deliverer.
func (out *Outbound) Group(r *queue.Recipient) string {
	if way := out.ownWay(r); way != "" {
		return way
	}
	return out.client.Group(r.Address.Domain)
}

// Learn implements queue.Deliverer.
func (out *Outbound) Learn(ctx context.Context, r *queue.Recipient) {
	if out.ownWay(r) == "" {
		out.client.Learn(ctx, r.Address.Domain)
	}
}

// ownWay names the way of a recipient that is not its domain's mail exchangers; "" if it is.
func (out *Outbound) ownWay(r *queue.Recipient) string {
	switch {
	case len(r.Pipe) > 0:
		return "program " + r.Pipe[0]
	case len(r.Via) > 0:
		return "via " + strings.Join(r.Via, "/")
	case out.isLocal(out.Domains(), r):
		return "local"
	case !out.Config.Outbound.Smarthost.IsZero():
		return "smarthost"
	}
	return ""
}

// isLocal reports whether a recipient must be looked up here before it can go anywhere.
func (out *Outbound) isLocal(world *domains.Set, r *queue.Recipient) bool {
	return len(r.Via) == 0 && len(r.Pipe) == 0 &&
		(world.Get(r.Address.Domain) != nil || r.Address.Domain == out.Config.Hostname)
}

// Deliver implements queue.Deliverer.
func (out *Outbound) Deliver(ctx context.Context, w *queue.Work) []queue.Outcome {
	world := out.Domains()
	outcomes := make([]queue.Outcome, len(w.Indexes))
	byCopy := map[string][]int{} // places in w.Indexes of recipients that get the same bytes
	var order []string
	for n, i := range w.Indexes {
		r := &w.Envelope.Recipients[i]
		switch {
		case len(r.Pipe) > 0:
			outcomes[n] = outcome(delivery.Pipe(ctx, r.Pipe, out.message(w, []int{i})))
		case out.isLocal(world, r):
			outcomes[n] = out.expand(world, w, r)
		default:
			key := r.Address.Domain + "\x00" + r.ReturnPath.String() + "\x00" + r.Fields
			if byCopy[key] == nil {
				order = append(order, key)
			}
			byCopy[key] = append(byCopy[key], n)
		}
	}
	for _, key := range order {
		places := byCopy[key]
		indexes := make([]int, len(places))
		for k, n := range places {
			indexes[k] = w.Indexes[n]
		}
		results := out.client.Deliver(ctx, out.route(&w.Envelope.Recipients[indexes[0]]), out.message(w, indexes))
		for k, n := range places {
			outcomes[n] = outcome(results[k])
		}
	}
	return outcomes
}

// message is the transaction for recipients that get the same copy.
func (out *Outbound) message(w *queue.Work, indexes []int) *delivery.Message {
	e := w.Envelope
	first := e.Recipients[indexes[0]]
	m := &delivery.Message{
		ReturnPath: first.ReturnPath, Size: e.Size + int64(len(first.Fields)),
		EightBit: e.EightBit, UTF8: e.UTF8, Body: withFields(first.Fields, w.Body),
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

// route is the way out for a recipient.
func (out *Outbound) route(r *queue.Recipient) delivery.Route {
	route := delivery.Route{Domain: r.Address.Domain, Hosts: r.Via}
	if smart := out.Config.Outbound.Smarthost; len(r.Via) == 0 && !smart.IsZero() {
		route.Hosts, route.User, route.Password = []string{smart.Addr()}, smart.User, smart.Password
		route.TLS = map[string]delivery.TLSMode{"submission": delivery.StartTLS, "submissions": delivery.Implicit}[smart.Scheme]
	}
	return route
}

// outcome says what a delivery result means for the queue.
func outcome(r delivery.Result) queue.Outcome {
	o := queue.Outcome{Reply: r.Reply, Host: r.Host, Reported: r.DSN, Strained: r.Strained, State: queue.Waiting}
	switch {
	case r.Reply.Positive():
		o.State = queue.Delivered
	case r.Reply.Permanent():
		o.State = queue.Failed
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
