package delivery

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"relayd/reply"
)

// A route that refuses our login is not asked again for firstLoginPause, twice as long after each
// further refusal, up to lastLoginPause: who tries a wrong password with every message soon finds
// the account locked. What is for it meanwhile has not been tried. Once the pause is at its longest
// it has: held as what was refused, or its sender would never be told.
const (
	firstLoginPause = 10 * time.Minute
	lastLoginPause  = 4 * time.Hour
	// lookAgain is how long a message waits before it asks whether the pause is over: after a restart,
	// for which somebody has mended the password, it goes by then.
	lookAgain = 10 * time.Minute
	// insistAfter is how old a refusal is before a message that insists is heeded: the admin has many
	// messages tried again at once, and they need one answer.
	insistAfter = 15 * time.Second
)

// logins is what is remembered of the logins along routes. As many are kept as the settings name.
type logins struct {
	mu sync.Mutex // guards the rest
	of map[loginKey]*login
}

type loginKey struct{ hosts, user, password string }

// A login is one route's. No two sessions say AUTH at a time: the second has heard of it then if the
// first was refused.
type login struct {
	turn chan struct{} // holds something while a session says AUTH

	mu      sync.Mutex   // guards the rest
	refusal *reply.Reply // nil: there was none, or it was taken since
	at      time.Time    // of the refusal
	pause   time.Duration
}

// along returns what is known of the login of a route.
func (l *logins) along(route Route) *login {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := loginKey{strings.Join(route.Hosts, " "), route.User, route.Password}
	if l.of == nil {
		l.of = map[loginKey]*login{}
	}
	if l.of[key] == nil {
		l.of[key] = &login{turn: make(chan struct{}, 1)}
	}
	return l.of[key]
}

// A loginHold is the error where no login was tried, because one was refused of late.
type loginHold struct {
	*reply.Reply
	until time.Time // when to come again; zero: the message is to be held
}

func (h *loginHold) Unwrap() error { return h.Reply }

// result is what a message gets that could not be brought to host.
func (h *loginHold) result(host string) Result {
	r := Result{Reply: h.Reply, Host: host, Until: h.until}
	if h.until.IsZero() {
		r.Verdict = consequences[ClassLogin]
	}
	return r
}

// mayLogIn returns a *loginHold if no login is to be tried along a route now.
func (c *Client) mayLogIn(route Route) error {
	if route.Password == "" || route.heard != nil { // a rehearsal is for finding out
		return nil
	}
	l, now := c.logins.along(route), c.opt.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	pause := l.pause
	if route.insist {
		pause = insistAfter
	}
	if l.refusal == nil || !c.before(l.at.Add(pause), lastLoginPause) {
		return nil
	}
	hold := &loginHold{Reply: reply.New(l.refusal.Code, l.refusal.Enhanced, "%s (%v ago; another login would be too soon)",
		l.refusal.Text, now.Sub(l.at).Round(time.Second)).Because(errSkipped)}
	if left := l.at.Add(l.pause).Sub(now); l.pause < lastLoginPause || route.insist {
		hold.until = now.Add(min(left, lookAgain))
	}
	return hold
}

// logIn has a session log in when it is its turn, and remembers how that went.
func (c *Client) logIn(ctx context.Context, s *session, route Route) error {
	if route.heard != nil {
		return s.login(route)
	}
	l, late := c.logins.along(route), time.NewTimer(s.times.Command)
	defer late.Stop()
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return s.lost(ctx.Err())
	case <-late.C:
		return reply.New(451, "4.4.2", "%s takes too long over another login", s.peer)
	}
	if err := c.mayLogIn(route); err != nil {
		return err
	}
	err := s.login(route)
	said, refused := errors.AsType[*refusal](err)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.refusal, l.pause = nil, 0
	case refused && !said.Temporary():
		l.refusal, l.at = reply.From(err), c.opt.Now()
		l.pause = min(max(firstLoginPause, 2*l.pause), lastLoginPause)
		c.opt.Log.Warn("a server refuses our login: no other is tried along this way for a while, unless relayd is restarted or for `relay-util queue-retry`",
			"host", s.peer.String(), "pause", l.pause.String())
	}
	return err
}
