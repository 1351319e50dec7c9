package delivery

import (
	"errors"

	"relayd/reply"
)

// A refusal is a server's reply that ended a session before MAIL: the cause of the temporary reply
// that the recipients get.
type refusal struct {
	*reply.Reply
	at Stage
}

func (r *refusal) Unwrap() error { return r.Reply }

// judge says what follows from an error of t; heard is false if it is neither of the server's saying
// nor of our settings, or nonsense: a yes where it ended the session.
func judge(err error, t target) (v Verdict, heard bool) {
	if isForeign(err) { // an address of the other family may do
		return Verdict{Class: ClassSetup, Fate: Hold, NextHost: true}, true
	}
	r, heard := errors.AsType[*refusal](err)
	if !heard || r.Positive() {
		return Verdict{}, false
	}
	return classify(r.Reply, r.at, t.provider()), true
}

// provider names who runs t, as classify wants it; "" where only an address is known.
func (t target) provider() string {
	if t.name == "" {
		return ""
	}
	return registrable(t.name)
}
