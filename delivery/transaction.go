package delivery

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"relayd/reply"
)

// maxBatch is how many recipients one transaction names: what RFC 5321 section 4.5.3.1.8 obliges
// every server to take.
const maxBatch = 100

// maxTransactions bounds one attempt: with a server that takes one recipient at a time, each with a
// copy of a large message, it would not end.
const maxTransactions = 200

// send delivers to the undecided, in as many transactions as the server's limits (RFC 9422) ask
// for. An error means that the connection is lost or of no use for the message, and somebody is
// undecided; without one somebody may be undecided only because no more can be sent over it.
func (s *session) send(a *attempt) error {
	pending := a.undecided()
	if err := s.promises(a.message); err != nil {
		return err
	}
	if r := s.unfit(a.message); r != nil {
		a.settle(pending, s.result(r))
		return nil
	}
	for !s.spent() {
		batch, later := s.choose(a, pending)
		if len(batch) == 0 {
			break
		}
		if a.begun++; a.begun > maxTransactions {
			a.settle(pending, s.result(reply.New(451, "4.5.3", "%s takes so few recipients at a time that the rest have to wait", s.peer)))
			return nil
		}
		again, err := s.transaction(a, batch)
		halved := a.batch > 0 && a.batch < len(batch)
		switch {
		case err != nil:
			return err
		case s.goodbye != nil:
			a.settle(later, s.judged(s.goodbye, AtMail))
			return nil
		case a.stopped(batch) != nil: // nothing more is sent now, to anybody
			a.settle(later, *a.stopped(batch))
			return nil
		case len(again) == len(batch) && !halved: // it takes nobody now: what it said stands, for the rest too
			a.settle(later, a.results[batch[0]])
			return nil
		case len(again) > 0 && !halved: // what it took is its limit
			a.batch = len(batch) - len(again)
		}
		pending = slices.Concat(again, later)
		if s.broken && len(pending) > 0 {
			a.settle(pending, Result{})
			return s.lost(errors.New("closed between transactions"))
		}
	}
	a.settle(pending, Result{}) // those who were too many too: a new connection is for them
	return nil
}

// choose takes from pending, in order, whom one transaction may name, and leaves the rest.
func (s *session) choose(a *attempt, pending []int) (batch, rest []int) {
	most := cmp.Or(a.batch, maxBatch)
	if n := s.limit("RCPTMAX"); n > 0 {
		most = min(most, n)
	}
	for _, i := range pending {
		domain := a.message.Recipients[i].Address.Domain
		switch {
		case len(batch) == most, !s.takes(domain):
			rest = append(rest, i)
			continue
		case !slices.Contains(s.domains, domain):
			s.domains = append(s.domains, domain)
		}
		batch = append(batch, i)
	}
	return batch, rest
}

// unfit is the reply to a message that this server has said it cannot take.
func (s *session) unfit(m *Message) *reply.Reply {
	if most, err := strconv.ParseInt(strings.TrimSpace(s.ext["SIZE"]), 10, 64); err == nil && most > 0 && m.Size > most {
		return reply.New(552, "5.3.4", "The message has %d bytes, and %s takes no more than %d", m.Size, s.peer, most)
	}
	if m.needsUTF8() && !s.offers("SMTPUTF8") {
		return reply.New(550, "5.6.7", "The next server takes no addresses and header fields with letters beyond ASCII (SMTPUTF8)")
	}
	return nil
}

// result is that of a reply of ours.
func (s *session) result(r *reply.Reply) Result {
	return Result{Reply: r, Host: s.peer.String(), TLS: s.tls, Strained: isStrain(r)}
}

// judged is the result of a reply at that stage. Ours alone have a cause.
func (s *session) judged(r *reply.Reply, at Stage) Result {
	result := s.result(r)
	if r.Cause == nil {
		result.Verdict = classify(r, at, s.peer.provider())
		result.Strained = result.Verdict.Strained
	}
	return result
}

// transaction sends to the recipients in batch and sets their results. It returns those whom the
// server wants in a transaction of their own because this one had enough. After an error the
// connection is lost, and who has no result is undecided.
func (s *session) transaction(a *attempt, batch []int) (again []int, err error) {
	replies, err := s.exchange(s.envelope(a.message, batch))
	mail, rcpts, data := replies[0], replies[1:1+len(batch)], replies[1+len(batch)]
	if mail == nil {
		return nil, err
	}
	var accepted []int
	for n, i := range batch {
		r, at := rcpts[n], AtRcpt
		if !mail.Positive() {
			r, at = mail, AtMail
		}
		switch {
		case r == nil:
		case r.Positive():
			accepted = append(accepted, i)
		default:
			a.results[i] = s.judged(r, at)
			if a.results[i].Verdict.Again {
				again = append(again, i)
			}
		}
	}
	if err != nil && (!mail.Positive() || len(a.undecided()) == 0) {
		return nil, nil // the connection was lost, but everybody was told
	}
	if err != nil {
		return nil, err
	}
	if !mail.Positive() && data.Code == 354 { // who knows for whom it would take a message
		s.broken = true
		return again, nil
	}
	tooMany, err := s.finish(a, data, accepted)
	if len(tooMany) > 0 && len(tooMany) == len(accepted) { // how many it would take is not known
		a.batch = len(accepted) / 2
	}
	return append(again, tooMany...), err
}

// finish sends the body if anybody gets it, and gives those the final reply. It returns those for
// whom that is that they were too many.
func (s *session) finish(a *attempt, data *reply.Reply, accepted []int) (tooMany []int, err error) {
	switch {
	case data.Code != 354:
		s.dirty = true
		a.settle(accepted, s.judged(data, AtData))
		return a.tooMany(accepted), nil
	case len(accepted) == 0:
		s.empty()
		return nil, nil
	}
	finals := make([]*reply.Reply, 1)
	if s.key.lmtp { // one for each, in their order (RFC 2033 section 4.2)
		finals = make([]*reply.Reply, len(accepted))
	}
	if err := s.body(a.message, finals); err != nil {
		return nil, err
	}
	for n, i := range accepted {
		final := finals[min(n, len(finals)-1)]
		r := s.judged(final, AtDot)
		r.DSN = final.Positive() && s.offers("DSN")
		a.results[i] = r
	}
	return a.tooMany(accepted), nil
}

// tooMany are those of accepted whom fewer recipients would help: nobody who was alone.
func (a *attempt) tooMany(accepted []int) []int {
	var list []int
	for _, i := range accepted {
		if len(accepted) > 1 && a.results[i].Verdict.Again {
			list = append(list, i)
		}
	}
	return list
}

// empty ends a message that is for nobody: a server that refused all recipients of a pipelined
// envelope and still wants the message gets a dot alone (RFC 2920 section 3.1).
func (s *session) empty() {
	if s.key.lmtp { // it has nobody to answer for
		s.broken = true
		return
	}
	s.dirty = true
	_, _ = s.command(s.times.Command, ".") // whatever it says, it is about nothing
}

// exchange sends the lines of an envelope and returns as many replies, nil for what was not
// answered. After an error the connection is lost.
func (s *session) exchange(lines []string) ([]*reply.Reply, error) {
	kept := s.begun > 0
	s.begun++
	reset := 0
	if s.dirty {
		reset = 1
		lines = slices.Insert(lines, 0, "RSET")
	}
	replies := make([]*reply.Reply, len(lines))
	talk := s.oneByOne
	if s.offers("PIPELINING") {
		talk = s.pipeline
	}
	err := talk(lines, replies)
	switch {
	case errors.Is(err, errBadReply): // perhaps out of step from the start: then a reply was for another
		clear(replies)
	case s.goodbye != nil && kept && slices.Contains(replies[:reset+1], s.goodbye) && !classify(s.goodbye, AtMail, s.peer.provider()).stops():
		// It tired of us before it knew what we want. A new connection shows whether that is all.
		clear(replies)
		err = s.lost(s.goodbye)
		s.goodbye = nil
	case s.goodbye != nil:
		fill(replies, s.goodbye)
		err = nil
	}
	s.dirty = s.dirty && replies[0] == nil
	return replies[reset:], err
}

// pipeline sends all lines at once (RFC 2920) and reads all replies.
func (s *session) pipeline(lines []string, replies []*reply.Reply) error {
	if err := s.inStep(); err != nil {
		return err
	}
	s.conn.SetDeadline(deadline(s.times.Command))
	for _, l := range lines {
		s.w.WriteString(l + "\r\n")
	}
	if err := s.w.Flush(); err != nil {
		return s.lost(err)
	}
	for i, l := range lines {
		r, err := s.read(s.patience(l))
		if err != nil {
			return err
		}
		replies[i] = r
		if err := s.check(l, r); err != nil {
			return err
		}
	}
	return nil
}

// oneByOne sends each line after the reply to the one before, and no DATA if it is in vain.
func (s *session) oneByOne(lines []string, replies []*reply.Reply) error {
	accepted := false
	for i, l := range lines {
		if l == "DATA" && !accepted {
			replies[i] = reply.New(503, "5.5.1", "No recipient was accepted")
			return nil
		}
		r, err := s.command(s.patience(l), l)
		if err != nil {
			return err
		}
		replies[i] = r
		if err := s.check(l, r); err != nil {
			return err
		}
		accepted = accepted || strings.HasPrefix(l, "RCPT ") && r.Positive()
		if strings.HasPrefix(l, "MAIL ") && !r.Positive() {
			fill(replies, r)
			return nil
		}
	}
	return nil
}

func (s *session) patience(line string) time.Duration {
	if line == "DATA" {
		return s.times.DataInit
	}
	return s.times.Command
}

// check finds replies that cannot belong to line. A 3xx is an answer to DATA alone, and whoever
// takes it for a yes elsewhere loses mail; a refused RSET leaves us in nobody knows which transaction.
func (s *session) check(line string, r *reply.Reply) error {
	odd := r.Positive() && (line == "DATA") != (r.Code == 354) || r.Code/100 == 3 && r.Code != 354
	if odd || line == "RSET" && !r.Positive() && r.Code != 421 {
		return s.lost(fmt.Errorf("%w: %q is no answer to %.4s", errBadReply, r.String(), line))
	}
	return nil
}

// fill gives r to all lines that have no reply.
func fill(replies []*reply.Reply, r *reply.Reply) {
	for i := range replies {
		if replies[i] == nil {
			replies[i] = r
		}
	}
}
