package queue

import (
	"errors"
	"fmt"

	"relayd/address"
)

// ErrFull says that there is no room for another message.
var ErrFull = errors.New("the queue is full")

// accounts are what each submitter has in the queue. All that comes from outside is one account:
// its senders are whoever they say they are.
type accounts struct {
	by    map[address.Address]*account
	total account
}

type account struct{ messages, bytes int64 }

// maxShare is what part of the queue one account may fill: a program that runs wild is stopped
// before it stops everybody else.
const maxShare = 0.5

func (a *accounts) enter(m *entry, e *Envelope) {
	m.account = a.by[e.User]
	if m.account == nil {
		m.account = new(account)
		a.by[e.User] = m.account
	}
	m.account.add(1, m.size)
	a.total.add(1, m.size)
}

func (a *accounts) leave(m *entry) {
	m.account.add(-1, -m.size)
	a.total.add(-1, -m.size)
}

func (a *account) add(messages, bytes int64) {
	a.messages += messages
	a.bytes += bytes
}

// room is nil while there is room for e on the disk and for its submitter, and the disk works.
func (s *LogStore) room(e *Envelope) error {
	if err := s.journal.failure(); err != nil {
		return err
	}
	free := int64(-1) // unknown
	if s.opt.ReserveBytes > 0 || s.opt.ReserveFiles > 0 {
		bytes, files, err := s.opt.FS.Free(s.opt.Dir)
		if err != nil {
			return err
		}
		if bytes < s.opt.ReserveBytes || files < s.opt.ReserveFiles {
			return fmt.Errorf("%w: %d bytes and %d files are left on the disk", ErrFull, bytes, files)
		}
		free = int64(min(bytes-s.opt.ReserveBytes, 1<<62))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var own account
	if a := s.accounts.by[e.User]; a != nil {
		own = *a
	}
	total := s.accounts.total
	bytes := s.opt.MaxBytes
	if free >= 0 && (bytes == 0 || total.bytes+free < bytes) {
		bytes = total.bytes + free
	}
	if err := within("messages", own.messages, total.messages, s.opt.MaxMessages); err != nil {
		return err
	}
	return within("bytes", own.bytes, total.bytes, bytes)
}

// within reports why one more is too much, if it is.
func within(what string, own, total, limit int64) error {
	switch {
	case limit <= 0:
	case total >= limit:
		return fmt.Errorf("%w: it holds %d %s", ErrFull, total, what)
	case float64(own) >= maxShare*float64(limit):
		return fmt.Errorf("%w for this submitter, who has %d of at most %d %s in it", ErrFull, own, limit, what)
	}
	return nil
}
