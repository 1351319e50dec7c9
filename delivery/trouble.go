package delivery

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"relayd/reply"
)

// An address that could not be reached or did not answer in time is left alone for firstPause,
// twice as long after each further failure, up to lastPause: what is for it is told at once what
// happened to the one before. Else ten thousand messages for a host that hangs would wait for the
// time-out one after the other. Then one attempt finds out how it is, while the others are told the
// same. No pause is longer than the wait before the first retry of a message, so that a message
// rarely comes twice in vain.
const (
	firstPause = time.Minute
	lastPause  = 5 * time.Minute
	// maxTroubles bounds the addresses that are remembered.
	maxTroubles = 20_000
)

// errSkipped says that an address was not tried, because of what is remembered of it.
var errSkipped = errors.New("not tried")

// A trouble is what is remembered of an address.
type trouble struct {
	reply   *reply.Reply
	at      time.Time // of the reply
	pause   time.Duration
	probing bool // one attempt is finding out
}

// admit returns nil if an attempt may try t now; then settle must follow. Else it returns the
// reply to give.
func (c *Client) admit(t target) *reply.Reply {
	var told *reply.Reply
	c.troubles.change(t.place(), func(old trouble, ok bool) (trouble, bool) {
		switch {
		case !ok:
		case old.probing, c.before(old.at.Add(old.pause), lastPause):
			told = old.retold(c.opt.Now())
		default:
			old.probing = true
		}
		return old, ok
	})
	return told
}

// retold is the reply for those who come after.
func (t trouble) retold(now time.Time) *reply.Reply {
	ago := max(0, now.Sub(t.at)).Round(time.Second)
	return reply.New(t.reply.Code, t.reply.Enhanced, "%s (%v ago; it will be tried again soon)", t.reply.Text, ago).
		Because(fmt.Errorf("%w: %w", errSkipped, t.reply.Cause))
}

// settle notes what became of an attempt at t: silence is remembered; that the attempt was cut off
// by us says nothing; and anything else clears the address.
func (c *Client) settle(t target, err error, cutOff bool) {
	c.troubles.change(t.place(), func(old trouble, ok bool) (trouble, bool) {
		switch {
		case cutOff:
			old.probing = false
			return old, ok
		case !isSilence(err):
			return old, false
		}
		now := c.opt.Now()
		switch {
		case !ok:
			old.pause = firstPause
		case !c.before(old.at.Add(old.pause), lastPause): // not one of several that failed together
			old.pause = min(2*old.pause, lastPause)
		}
		return trouble{reply: reply.From(err), at: now, pause: old.pause}, true
	})
}

// isSilence reports whether err says that a server could not be reached or did not answer in time.
// That we have no more file descriptors is not the server's fault.
func isSilence(err error) bool {
	return isTimeout(err) || errors.Is(err, errUnreachable) && !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE)
}

func isTimeout(err error) bool {
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

// isStrain reports whether err says that a server has more of us than it bears, now and not as it
// is remembered.
func isStrain(err error) bool {
	if err == nil || errors.Is(err, errSkipped) {
		return false
	}
	return reply.From(err).Code == 421 || isSilence(err) || errors.Is(err, errLost)
}
