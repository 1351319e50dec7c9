package users

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
)

// A lane lets so many comparisons run at a time. Sources that wait have their turns one after the
// other, and where too many wait, who has the most of them gives one up: so whoever sends many
// logins makes others wait for one of them at most.
type lane struct {
	most, mostOfSource int

	mu      sync.Mutex // guards the rest
	free    int
	waiting int
	turns   []*queue // of sources that wait; the first is next
}

// A queue is the logins of one source that wait, the first one first.
type queue struct {
	source netip.Prefix
	logins []chan error // each is told nil when it is its turn
}

func newLane(opt VerifierOptions) *lane {
	return &lane{most: opt.MaxWaiting, mostOfSource: opt.MaxOfSource, free: opt.AtOnce}
}

// acquire waits for a turn, which is to be given back by release. It returns ErrBusy if there is none.
func (l *lane) acquire(ctx context.Context, source netip.Prefix) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
	}
	turn, err := l.enter(source)
	if turn == nil {
		return err
	}
	select {
	case err := <-turn:
		return err
	case <-ctx.Done():
	}
	if !l.leave(source, turn) && <-turn == nil { // it was its turn meanwhile
		l.release()
	}
	return fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
}

// enter takes a free turn, for which it returns nil and no error, or a place in its queue.
func (l *lane) enter(source netip.Prefix) (chan error, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free > 0 {
		l.free--
		return nil, nil
	}
	own := l.queue(source)
	if own != nil && len(own.logins) >= l.mostOfSource {
		return nil, fmt.Errorf("%w from %s", ErrBusy, source)
	}
	if l.waiting >= l.most && !l.makeRoom(own) {
		return nil, ErrBusy
	}
	if own == nil {
		own = &queue{source: source}
		l.turns = append(l.turns, own)
	}
	turn := make(chan error, 1)
	own.logins = append(own.logins, turn)
	l.waiting++
	return turn, nil
}

// makeRoom sends the last login of the longest queue away, for one of another that is shorter by two at
// least. It reports whether there was one.
func (l *lane) makeRoom(own *queue) bool {
	if len(l.turns) == 0 {
		return false
	}
	longest := slices.MaxFunc(l.turns, func(a, b *queue) int { return len(a.logins) - len(b.logins) })
	n := 0
	if own != nil {
		n = len(own.logins)
	}
	if len(longest.logins) < n+2 {
		return false
	}
	last := longest.logins[len(longest.logins)-1]
	longest.logins = longest.logins[:len(longest.logins)-1]
	l.waiting--
	last <- ErrBusy
	return true
}

func (l *lane) queue(source netip.Prefix) *queue {
	i := slices.IndexFunc(l.turns, func(one *queue) bool { return one.source == source })
	if i < 0 {
		return nil
	}
	return l.turns[i]
}

// leave gives a place up. It returns false if the login waits no more.
func (l *lane) leave(source netip.Prefix, turn chan error) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	own := l.queue(source)
	if own == nil {
		return false
	}
	i := slices.Index(own.logins, turn)
	if i < 0 {
		return false
	}
	own.logins = slices.Delete(own.logins, i, i+1)
	l.waiting--
	if len(own.logins) == 0 {
		l.turns = slices.DeleteFunc(l.turns, func(one *queue) bool { return one == own })
	}
	return true
}

// release gives a turn to the source that is next, which then is the last.
func (l *lane) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.turns) == 0 {
		l.free++
		return
	}
	next := l.turns[0]
	l.turns = l.turns[1:]
	turn := next.logins[0]
	if next.logins = next.logins[1:]; len(next.logins) > 0 {
		l.turns = append(l.turns, next)
	}
	l.waiting--
	turn <- nil
}
