package delivery

import (
	"fmt"
	"io"
	"time"

	"relayd/reply"
)

// body sends the message and reads as many final replies as there are places for. They are ours
// where the server gave none to the final dot. An error means that the connection was lost before
// the dot.
func (s *session) body(m *Message, finals []*reply.Reply) error {
	r, err := s.write(m)
	if err != nil {
		return err
	}
	for i := 0; i < len(finals) && r == nil; i++ {
		finals[i], r = s.final()
	}
	fill(finals, r)
	return nil
}

// final reads one final reply. rest is for whoever gets none after that.
func (s *session) final() (given, rest *reply.Reply) {
	r, err := s.read(s.times.Dot)
	if err == nil {
		err = s.check(".", r)
	}
	switch {
	case err != nil:
		r = reply.From(err)
		return r, r
	case s.goodbye != nil:
		return r, s.goodbye
	}
	return r, nil
}

// write sends the message with its end mark. With a reply, ours or the server's, there is nothing
// to wait for any more. An error is that of body.
func (s *session) write(m *Message) (*reply.Reply, error) {
	body, err := m.Body()
	if err != nil {
		s.broken = true // inside DATA there is no other way out
		return reply.Internal(err), nil
	}
	defer body.Close()
	d := newDotWriter(s.w, func() { s.conn.SetDeadline(deadline(s.times.Block)) })
	from := &readErr{r: body}
	if _, err := io.CopyBuffer(d, from, make([]byte, min(max(m.Size, 512), 32<<10))); err != nil {
		s.broken = true
		if from.err != nil {
			return reply.Internal(fmt.Errorf("reading the message: %w", from.err)), nil
		}
		return s.lastWord(err)
	}
	if err := d.end(); err != nil { // the last byte of the end mark was not sent
		return s.lastWord(err)
	}
	return nil, nil
}

// lastWord is what a server said that would not take all of a message, such as 552 for its size.
func (s *session) lastWord(lost error) (*reply.Reply, error) {
	s.broken = true
	if r, err := s.read(time.Second); err == nil && !r.Positive() {
		return r, nil
	}
	return nil, s.lost(lost)
}

// readErr remembers why reading ended, since io.Copy does not tell whose error it returns.
type readErr struct {
	r   io.Reader
	err error
}

func (r *readErr) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}
