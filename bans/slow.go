package bans

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// errSlowed says that too many logins are being slowed already. The client may try again.
var errSlowed = errors.New("too many logins that are slowed wait already")

const (
	// delay is how long a login waits that is slowed. Mail programs bear it; who guesses does not get far.
	delay = 5 * time.Second
	// slowedAtOnce bounds the logins that wait, of sources that are known and of those that are not, for
	// each holds a connection. slowedOfOne is how many of them may be of one source for one account.
	slowedAtOnce = 100
	slowedOfOne  = 2
)

// A place is whom a login is from and for.
type place struct {
	source  netip.Prefix
	account string
	known   bool
}

// queues are the logins that wait. The zero queues are empty; they are safe for concurrent use.
type queues struct {
	mu    sync.Mutex
	of    map[place]int
	count map[bool]int // by known
}

func (q *queues) wait(ctx context.Context, p place) error {
	if !q.enter(p) {
		return errSlowed
	}
	defer q.leave(p)
	t := time.NewTimer(delay)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (q *queues) enter(p place) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.of == nil {
		q.of, q.count = map[place]int{}, map[bool]int{}
	}
	if q.of[p] >= slowedOfOne || q.count[p.known] >= slowedAtOnce {
		return false
	}
	q.of[p]++
	q.count[p.known]++
	return true
}

func (q *queues) leave(p place) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.count[p.known]--
	if q.of[p]--; q.of[p] == 0 {
		delete(q.of, p)
	}
}
