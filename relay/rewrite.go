package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"relayd/address"
	"relayd/delivery"
	"relayd/message"
	"relayd/queue"
)

// A refusal for the sake of the author's domain is final for the message as it is: it passed DMARC
// here by SPF alone, and no forwarded copy can. With a From of ours it is our mail, and passes.

// sendRewritten sends once more, at once, to those recipients of a transfer whose refusal calls for
// another From, and puts what comes of it into results. It is tried unchanged first each time, for
// a destination may have learnt to trust us.
func (out *Outbound) sendRewritten(ctx context.Context, w *queue.Work, t *transfer, results []delivery.Result) {
	var again, indexes []int // in results, and of recipients
	for k, n := range t.places {
		if i := w.Indexes[n]; w.Envelope.Recipients[i].Rewrite && results[k].Verdict.Rewrite {
			again, indexes = append(again, k), append(indexes, i)
		}
	}
	if len(indexes) == 0 || ctx.Err() != nil {
		return
	}
	m := out.message(w, indexes)
	if err := out.rewrite(m, w, &w.Envelope.Recipients[indexes[0]]); err != nil {
		out.Log.Warn("a message that was refused for its From cannot be sent with another", "id", w.Envelope.ID, "error", err.Error())
		return
	}
	out.Log.Info("refused for its From: sent once more with one of ours", "id", w.Envelope.ID, "host", results[again[0]].Host, "reply", results[again[0]].Reply.String())
	for k, result := range out.client.Deliver(ctx, t.route, m) {
		results[again[k]] = result
	}
}

// rewrite gives m a From of ours. Its bytes are those of the stored message, but for the author's
// From, which goes on as X-Original-From.
func (out *Outbound) rewrite(m *delivery.Message, w *queue.Work, r *queue.Recipient) error {
	header, err := storedHeader(w)
	if err != nil {
		return err
	}
	author, err := header.From()
	if err != nil {
		return err
	}
	world := out.Domains()
	d := world.Get(r.Alias.Domain)
	if d == nil || d.Broken != nil {
		return errors.New("the domain of the alias is not in service")
	}
	name := out.srsDomain(d)
	c := &rewritten{front: fromOurs(header, author, name), cut: len(header.Raw()), stored: w.Body}
	_, c.rest = header.Split("From")
	text, err := c.open()
	if err != nil {
		return err
	}
	defer text.Close()
	signature, err := out.sign(world, name, text)
	if err != nil {
		return err
	}
	if signature == "" && r.ReturnPath.Domain != name {
		return errors.New(name + " has no DKIM key, and nothing else would show that the message is from it")
	}
	c.front = without("DKIM-Signature", r.Fields) + signature + c.front // ours covers the author's From
	m.Body, m.Size = c.open, w.Envelope.Size+c.growth()
	return nil
}

// fromOurs are the fields that name us as the author of a message, and who it really is.
func fromOurs(h message.Header, author address.Address, name string) string {
	shown := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(author.String())
	field, _ := h.Split("From")
	_, value, _ := bytes.Cut(field, []byte(":"))
	fields := "From: \"" + shown + "\"\r\n <noreply@" + name + ">\r\nX-Original-From:" + string(value)
	if !h.Has("Reply-To") {
		fields += "Reply-To: <" + author.String() + ">\r\n"
	}
	return fields
}

// without takes the fields of a name out of those for one copy.
func without(name, fields string) string {
	h, err := message.ParseHeader([]byte(fields))
	if err != nil {
		return fields
	}
	_, rest := h.Split(name)
	return string(rest)
}

// storedHeader reads the header of a message in the queue.
func storedHeader(w *queue.Work) (message.Header, error) {
	body, err := w.Body()
	if err != nil {
		return message.Header{}, err
	}
	defer body.Close()
	return message.ReadHeader(body)
}

// A rewritten is a copy of a stored message with another header.
type rewritten struct {
	front  string // new fields
	rest   []byte // what is kept of the stored header
	cut    int    // length of the stored header in bytes
	stored func() (io.ReadCloser, error)
}

// growth is by how many bytes the copy is longer.
func (c *rewritten) growth() int64 { return int64(len(c.front) + len(c.rest) - c.cut) }

// open reads the copy from the start.
func (c *rewritten) open() (io.ReadCloser, error) {
	body, err := c.stored()
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, body, int64(c.cut)); err != nil {
		body.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(strings.NewReader(c.front), bytes.NewReader(c.rest), body), body}, nil
}
