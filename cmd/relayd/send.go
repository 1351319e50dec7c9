package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"relayd/address"
	"relayd/control"
	"relayd/follow"
	"relayd/message"
	"relayd/relay"
)

// Send implements control.Daemon.
func (d *daemon) Send(ctx context.Context, env control.Sending, msg io.Reader) (*control.Sent, error) {
	s, err := submission(env)
	if err != nil {
		return nil, err
	}
	limit := int64(d.conf.Limits.MessageSize)
	m, err := message.Read(msg, d.store.TemporaryDir(), limit)
	if err != nil {
		return nil, relay.ReadError(err, limit)
	}
	defer m.Close()
	tx := s.Begin()
	events, stop := d.follow.Follow(tx.ID)
	if err := d.inbound.Submit(ctx, s, tx, m); err != nil {
		stop()
		return nil, err
	}
	queued := follow.Event{At: time.Now(), What: follow.Queued, ID: tx.ID, Signatures: relay.Signatures(m)}
	return &control.Sent{Queued: queued, Events: events, Stop: stop}, nil
}

func submission(env control.Sending) (*relay.Submission, error) {
	from, err := address.Parse(env.From)
	if err != nil {
		return nil, fmt.Errorf("the sender: %w", err)
	}
	s := &relay.Submission{User: from, Sender: from}
	for _, to := range env.To {
		a, err := address.Parse(to)
		if err != nil {
			return nil, fmt.Errorf("a recipient: %w", err)
		}
		s.Recipients = append(s.Recipients, relay.Recipient{Address: a})
	}
	return s, nil
}
