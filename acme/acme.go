// Package acme keeps certificates by ACME (RFC 8555): it orders one for each name, renews it in
// time, and says how that goes. It promises that
//
//   - a certificate and its key come into place together, or neither does;
//   - renewal is at two thirds of the lifetime, or when the CA asks for it (RFC 9773), at a time that
//     is chosen once and kept over a restart, so that neither a restart nor a second look moves it;
//   - after an error the next try is minutes later, then twice as long each time up to a day, and not
//     before the CA's Retry-After; no clock, however wrong, makes it order over and over;
//   - each name is on its own: one that cannot be proved keeps no other from being renewed;
//   - who runs it can always end it, though the library below knows no context.
//
// Only lego.go, and providers.go with the DNS providers, know that library; all else sees the
// interface CA.
package acme

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// A CA issues certificates. Its methods return soon after ctx ends.
type CA interface {
	// Obtain orders a certificate for one DNS name, which may be a wildcard, in the place of
	// replaced (RFC 9773 section 5), which may be nil.
	Obtain(ctx context.Context, name string, replaced *x509.Certificate) (*Pair, error)
	// Window asks when a certificate should be renewed; ErrNoWindow says that the CA does not tell.
	Window(ctx context.Context, leaf *x509.Certificate) (Window, error)
}

// A Pair is a certificate with its chain, and its key, both in PEM.
type Pair struct{ Chain, Key []byte }

// A Window is when a certificate should be renewed, and after how long to ask again (0: not said).
type Window struct {
	Start, End time.Time
	Again      time.Duration
}

// ErrNoWindow says that a CA does not tell when to renew.
var ErrNoWindow = errors.New("the certificate authority does not tell when to renew")

// A WaitError is an error of a CA that asked for a pause.
type WaitError struct {
	Err   error
	After time.Duration
}

func (e *WaitError) Error() string {
	return fmt.Sprintf("%v (it asks to wait for %v)", e.Err, e.After.Round(time.Second))
}

func (e *WaitError) Unwrap() error { return e.Err }

// Options are a Keeper's. All but Notify, Now and Chance are required.
type Options struct {
	Dir       string   // where certificates go: DIR/NAME/, for a wildcard DIR/_.NAME/; and the state
	Names     []string // one certificate for each
	Directory string   // the CA's name; a certificate of another one is replaced
	CA        CA
	Write     func(file string, data []byte) error // replaces a file at once, durably
	Changed   func()                               // is called when a new certificate is in place
	// Notify tells the postmaster, once for each certificate that runs out.
	Notify func(subject, text string) error
	Log    *slog.Logger
	Now    func() time.Time // time.Now
	Chance func() float64   // in [0,1)
}

// A Keeper keeps the certificates of some names. Its methods are safe for concurrent use.
type Keeper struct {
	opt   Options
	again chan struct{} // Retry was called

	mu    sync.Mutex
	names map[string]*record
}

// Limits in time.
const (
	attemptLimit = 30 * time.Minute // of one order: some DNS providers take twenty minutes
	windowLimit  = time.Minute
	// lookEvery is how long the Keeper sleeps at most: the clock may have been set.
	lookEvery = 10 * time.Minute
)

// New makes a Keeper that goes on where the last one ended. What it cannot read of the state is
// logged and forgotten: that costs an early order at most.
func New(opt Options) *Keeper {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Chance == nil {
		opt.Chance = rand.Float64
	}
	k := &Keeper{opt: opt, again: make(chan struct{}, 1), names: make(map[string]*record)}
	saved, err := readState(opt.Dir)
	if err != nil {
		opt.Log.Error("the state of ACME is forgotten", "error", err.Error())
	}
	if err := discard(opt.Dir, opt.Names, opt.Now()); err != nil {
		opt.Log.Error("a certificate that nobody wants any more stays", "error", err.Error())
	}
	for _, name := range opt.Names {
		r := saved[name]
		if r == nil {
			r = &record{}
		}
		if r.leaf, err = readLeaf(opt.Dir, name); err != nil {
			opt.Log.Error("the certificate in place does not do, a new one is ordered", "name", name, "error", err.Error())
		}
		k.names[name] = r
	}
	return k
}

// Run keeps the certificates until ctx ends. It is called once.
func (k *Keeper) Run(ctx context.Context) {
	for ctx.Err() == nil {
		next := k.opt.Now().Add(lookEvery)
		for _, name := range k.opt.Names {
			if t := k.look(ctx, name); t.Before(next) {
				next = t
			}
		}
		// Not less than a second, whatever the clock does.
		timer := time.NewTimer(max(time.Second, next.Sub(k.opt.Now())))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-k.again:
			k.hurry()
		}
		timer.Stop()
	}
}

// Retry has what failed be tried now rather than at its time, when somebody may have mended it;
// no sooner than a minute after the last try, and not where the CA asked for a pause.
func (k *Keeper) Retry() {
	select {
	case k.again <- struct{}{}:
	default:
	}
}

func (k *Keeper) hurry() {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.opt.Now()
	for _, r := range k.names {
		if r.Failures > 0 && !r.Paused {
			r.TryAt = earlier(r.TryAt, later(now, r.TriedAt.Add(hurryPause)))
		}
	}
}

// look does what is due for one name, and returns when it is to be looked at again.
func (k *Keeper) look(ctx context.Context, name string) time.Time {
	r := k.record(name)
	before := *r
	now := k.opt.Now()
	r.adopt(k.opt.Directory, now, k.opt.Chance)
	switch {
	case r.askAt(now).After(now): // not yet
	case ctx.Err() == nil:
		k.ask(ctx, name, r)
	}
	if !r.orderAt(now, k.opt.Directory).After(now) && ctx.Err() == nil {
		k.order(ctx, name, r)
	}
	k.warn(name, r)
	if *r != before {
		k.save(name, r)
	}
	now = k.opt.Now()
	return earlier(r.orderAt(now, k.opt.Directory), r.askAt(now))
}

// record is a copy, which only Run's goroutine changes and save puts back.
func (k *Keeper) record(name string) *record {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := *k.names[name]
	return &r
}

func (k *Keeper) save(name string, r *record) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.names[name] = r
	if err := writeState(k.opt.Dir, k.names, k.opt.Write); err != nil {
		k.opt.Log.Error("the state of ACME was not saved: after a restart a certificate may be ordered too early", "error", err.Error())
	}
}

// ask has the CA say when it wants the certificate renewed. That it does not is no reason to worry.
func (k *Keeper) ask(ctx context.Context, name string, r *record) {
	ctx, cancel := context.WithTimeout(ctx, windowLimit)
	defer cancel()
	w, err := k.opt.CA.Window(ctx, r.leaf)
	now := k.opt.Now()
	r.AskAt = now.Add(askAgain(w, err))
	if err != nil {
		k.opt.Log.Debug("asking when to renew", "name", name, "error", err.Error())
		return
	}
	if r.follow(w, k.opt.Chance) {
		k.opt.Log.Info("the certificate authority says when to renew", "name", name, "at", r.RenewAt)
	}
}

// order gets a certificate and puts it into place.
func (k *Keeper) order(ctx context.Context, name string, r *record) {
	k.opt.Log.Info("ordering a certificate", "name", name)
	r.TriedAt = k.opt.Now()
	begun := *r
	k.save(name, &begun) // before it begins: a crash in the middle shall not make it begin over and over
	leaf, err := k.obtain(ctx, name, r)
	if ctx.Err() != nil && err != nil {
		*r = *k.record(name) // we are going down: that is nobody's failure
		return
	}
	now := k.opt.Now()
	if leaf != nil {
		r.leaf = leaf
		k.opt.Changed()
	}
	if err != nil {
		r.fail(err, now, k.opt.Chance)
		k.opt.Log.Error("no new certificate", "name", name, "error", err.Error(), "failures", r.Failures, "next_try", r.TryAt)
		return
	}
	*r = record{leaf: leaf, Directory: k.opt.Directory, TriedAt: now}
	r.adopt(k.opt.Directory, now, k.opt.Chance)
	k.opt.Log.Info("certificate issued", "name", name, "not_after", leaf.NotAfter, "renew_at", r.RenewAt)
}

// obtain returns the new certificate when it is in place, also with an error: that of the clock.
func (k *Keeper) obtain(ctx context.Context, name string, r *record) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	var replaced *x509.Certificate
	if r.Directory == k.opt.Directory {
		replaced = r.leaf
	}
	pair, err := k.opt.CA.Obtain(ctx, name, replaced)
	if err != nil {
		return nil, err
	}
	leaf, err := pair.leaf()
	if err == nil {
		err = leaf.VerifyHostname(exampleOf(name))
	}
	if err != nil {
		return nil, fmt.Errorf("what the certificate authority has issued does not do: %w", err)
	}
	if err := install(k.opt.Dir, folderOf(name), pair); err != nil {
		return nil, fmt.Errorf("putting the certificate into place: %w", err)
	}
	r.Directory = k.opt.Directory
	if now := k.opt.Now(); !validAt(leaf, now) {
		return leaf, &clockError{now, leaf}
	}
	return leaf, nil
}

// warn tells the postmaster of a certificate that runs out, once for each.
func (k *Keeper) warn(name string, r *record) {
	now := k.opt.Now()
	if k.opt.Notify == nil || r.leaf == nil || !r.runsOut(now) || r.Warned == serial(r.leaf) {
		return
	}
	s := status(name, r, now, k.opt.Directory)
	err := k.opt.Notify("The certificate for "+name+" runs out", s.String()+
		".\n\nWhen it has expired, mail programs and Gmail will not log in any more.\n"+
		"Mend what the error says, then have it tried at once: relay-util reload\n")
	if err != nil {
		k.opt.Log.Error("the postmaster could not be told that a certificate runs out", "name", name, "error", err.Error())
		return
	}
	r.Warned = serial(r.leaf)
}

// Status tells how every name fares, in the order of the names.
func (k *Keeper) Status() []Status {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.opt.Now()
	var list []Status
	for _, name := range k.opt.Names {
		list = append(list, status(name, k.names[name], now, k.opt.Directory))
	}
	return list
}
