package delivery

import (
	"context"
	"errors"
	"slices"
	"time"

	"relayd/reply"
)

// A search is one attempt's way from address to address.
type search struct {
	*attempt
	client *Client
	begun  time.Time
	tried  int      // addresses, and hosts without any
	why    Result   // for those who are undecided at the end
	six    Result   // a refusal for the sake of IPv6, which stands if there is no IPv4
	ipv4   bool     // there is an address of it
	spared []option // those of IPv6 that were not tried: the provider takes nothing over it
}

// An option is an address to try, with what is demanded of its host.
type option struct {
	target
	route Route
}

// try goes from address to address until everybody has a result, and returns the one for those
// who have none at the end.
func (c *Client) try(ctx context.Context, route Route, a *attempt) Result {
	route.insist = a.message.Insist
	groups, err := c.hosts(ctx, route, a.message.Insist)
	if err != nil {
		return Result{Reply: reply.From(err)}
	}
	s := &search{attempt: a, client: c, begun: time.Now()}
	s.why = Result{Reply: reply.New(451, "4.4.1", "No address of any mail server for %s could be used", route.Domain)}
	for n, group := range groups {
		hosts := c.resolve(ctx, group[:min(len(group), maxAddresses)], c.network())
		if len(route.Hosts) == 0 && c.hasSelf(hosts) {
			// RFC 5321 section 5.1: we and all that are no better than we are drop out.
			if n == 0 {
				return Result{Reply: loop(route.Domain)}
			}
			break
		}
		for _, f := range hosts {
			if !s.host(ctx, route, f) {
				return s.rest()
			}
		}
		if s.tried >= maxAddresses {
			break
		}
	}
	if !s.ipv4 { // what the provider said of IPv6 may be mended by now
		s.each(ctx, s.spared)
	}
	return s.rest()
}

// host tries the addresses of a host. It returns false when there is nothing more to try.
func (s *search) host(ctx context.Context, route Route, f found) bool {
	route = s.client.protect(ctx, route, &f, s.attempt)
	if f.err != nil {
		s.tried++
		if s.why.Host == "" || s.why.Reply.Permanent() {
			s.why = Result{Reply: reply.From(f.err), Host: f.host.name}
		}
	}
	var options []option
	for _, t := range f.targets {
		o := option{t, route}
		s.ipv4 = s.ipv4 || t.addr.Addr().Is4()
		if t.isIPv6() && !s.message.Insist && s.client.sixes.refuses(t, s.client.opt.Now()) {
			s.spared = append(s.spared, o)
			continue
		}
		options = append(options, o)
	}
	s.hasten(options)
	return s.each(ctx, options)
}

// hasten has the addresses of a host connect soon or not at all as long as one of the other family
// is left: a network where one family leads nowhere says so by nothing but silence.
func (s *search) hasten(options []option) {
	for i, o := range options {
		if slices.ContainsFunc(options[i+1:], func(next option) bool { return next.isIPv6() != o.isIPv6() }) {
			options[i].route.dial = s.client.opt.Times.OtherFamily
		}
	}
}

// each tries addresses in turn. It returns false when there is nothing more to try.
func (s *search) each(ctx context.Context, options []option) bool {
	for _, o := range options {
		if o.isIPv6() && s.six.Reply != nil && s.ipv4 {
			continue // refused in this attempt
		}
		if s.tried++; s.tried > maxAddresses || ctx.Err() != nil || time.Since(s.begun) > longestAttempt {
			return false
		}
		if !s.address(ctx, o) {
			return false
		}
	}
	return true
}

// address tries one. It returns false when everybody has a result, or nothing more is to be tried.
func (s *search) address(ctx context.Context, o option) bool {
	before := s.undecided()
	err := s.client.tryAddress(ctx, o.route, o.target, s.attempt)
	if o.isIPv6() {
		s.learn(o.target, before)
	}
	if r := s.stopped(before); r != nil {
		s.why, s.strained = *r, s.strained || r.Strained
		return false
	}
	if err == nil {
		return len(s.undecided()) > 0
	}
	if hold, ok := errors.AsType[*loginHold](err); ok {
		s.why = hold.result(o.String())
		return false
	}
	if s.message.RequireTLS {
		err = withRequireTLS(err)
	}
	last := Result{Reply: reply.From(err), Host: o.String(), Strained: isStrain(err)}
	v, heard := judge(err, o.target)
	if heard {
		last.Verdict, last.Strained = v, v.Strained
	}
	s.strained = s.strained || last.Strained
	s.client.opt.Log.Debug("next address", "host", o.String(), "error", err.Error())
	switch {
	case v.IPv4 && o.isIPv6():
		s.refused(o.target, last)
	case heard && !v.NextHost:
		s.why = last
		return false
	default:
		s.why = tellMore(s.why, last)
	}
	return true
}

// learn takes what IPv6 has to do with from the results of those who were undecided before t was
// tried: whoever was refused for its sake is undecided again.
func (s *search) learn(t target, before []int) {
	for _, i := range before {
		switch r := s.results[i]; {
		case r.Reply == nil:
		case r.Verdict.IPv4:
			s.refused(t, r)
			s.results[i] = Result{}
		case r.Reply.Positive():
			s.client.sixes.forget(t)
		}
	}
}

// refused notes that t does not take mail because it comes over IPv6.
func (s *search) refused(t target, r Result) {
	s.six = r
	if s.client.sixes.note(t, r.Verdict.Advice, s.client.opt.Now()) {
		s.client.opt.Log.Warn("no mail is taken over IPv6: it goes over IPv4 for a day",
			"host", r.Host, "reply", r.Reply.String(), "advice", r.Verdict.Advice)
	}
}

// rest is the result for those who are undecided at the end.
func (s *search) rest() Result {
	if s.six.Reply != nil && !s.ipv4 {
		return s.six
	}
	return s.why
}
