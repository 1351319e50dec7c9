package users

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayd/address"
)

// ErrBusy is returned by Verify when the login was not checked. It says nothing about the
// password: the client may try again.
var ErrBusy = errors.New("too many logins at once")

// VerifierOptions are the settings of a Verifier. A zero value stands for the default.
type VerifierOptions struct {
	Cost          int              // of the comparison for an unknown domain; 10, held within MinCost and MaxCost
	Now           func() time.Time // time.Now
	Remember      time.Duration    // how long a right login needs no bcrypt; 10 minutes
	MaxRemembered int              // how many logins are remembered; 10,000, the oldest is forgotten first
	MaxWaiting    int              // how many logins wait for their turn; 100
	// Upgrade puts a hash by bcrypt where a right login has found one by scrypt, called old. The
	// login waits for it. nil leaves hashes as they are.
	Upgrade func(addr address.Address, old, hash string)
}

// A Verifier checks logins. Every one that is not remembered costs exactly one comparison with a hash,
// and never two of them run at a time, so guessing passwords takes one core of the machine at
// most. It is safe for concurrent use.
type Verifier struct {
	opt     VerifierOptions
	turn    chan struct{} // holds one token while a comparison runs
	waiting atomic.Int64
	secret  [32]byte
	standIn string // a hash that no password fits
	compare func(hash, password []byte) error
	mu      sync.Mutex
	expiry  map[loginKey]time.Time
	inOrder []loginKey // the keys of expiry, oldest first
}

// A loginKey stands for an address, its hash and its password; none of them can be had from it
// without the secret, which lives as long as the process.
type loginKey [sha256.Size]byte

// NewVerifier makes a Verifier that remembers nothing yet.
func NewVerifier(opt VerifierOptions) *Verifier {
	opt.Cost = min(max(cmp.Or(opt.Cost, 10), MinCost), MaxCost)
	opt.Remember = cmp.Or(opt.Remember, 10*time.Minute)
	opt.MaxRemembered = cmp.Or(opt.MaxRemembered, 10_000)
	opt.MaxWaiting = cmp.Or(opt.MaxWaiting, 100)
	if opt.Now == nil {
		opt.Now = time.Now
	}
	v := &Verifier{
		opt:     opt,
		turn:    make(chan struct{}, 1),
		standIn: fmt.Sprintf("$2y$%02d$%s", opt.Cost, strings.Repeat(".", 53)),
		compare: compareHash,
		expiry:  make(map[loginKey]time.Time),
	}
	rand.Read(v.secret[:]) // never fails: it ends the program first
	return v
}

// Verify reports whether the password is right for the user addr of the table t, which is nil for
// a domain that is not ours. It returns ErrBusy, and no verdict, when MaxWaiting logins wait
// already or ctx ends before this one has its turn.
//
// A wrong password, a disabled user, an unknown user and an unknown domain take one comparison
// each. For an unknown user that is with the hash of a user who exists, always the same one for
// the same name: where hashes differ in cost, the time tells no more about a name than that.
// A right login is remembered together with the hash it was checked against, so a changed hash
// and a disabled user are out as soon as t says so.
func (v *Verifier) Verify(ctx context.Context, t *Table, addr address.Address, password string) (bool, error) {
	hash, may := v.hashFor(t, addr.Local)
	if CheckPassword(password) != nil {
		may = false
		// bcrypt looks at no more than this, and would find a longer password right.
		password = password[:min(len(password), MaxPassword)]
	}
	key := v.loginKey(addr.Key(), hash, password)
	if may && v.remembered(key) {
		return true, nil
	}
	right, better, err := v.compareInTurn(ctx, key, login{hash, password, may})
	if better != "" {
		v.opt.Upgrade(addr, hash, better)
	}
	return right, err
}

// A login is a password, the hash to compare it with, and whether it may be right.
type login struct {
	hash, password string
	may            bool
}

// compareInTurn waits for its turn and compares. better is the hash by bcrypt that should stand in
// place of the one that was right, "" for none.
func (v *Verifier) compareInTurn(ctx context.Context, key loginKey, l login) (right bool, better string, err error) {
	if err := v.acquire(ctx); err != nil {
		return false, "", err
	}
	defer v.release()
	// An app that opens many connections at once logs in on all of them before the first is answered.
	if l.may && v.remembered(key) {
		return true, "", nil
	}
	if v.compare([]byte(l.hash), []byte(l.password)) != nil || !l.may {
		return false, "", nil
	}
	v.remember(key)
	if v.opt.Upgrade == nil || !isScrypt(l.hash) {
		return true, "", nil
	}
	better, err = Hash(l.password, v.opt.Cost)
	return true, better, err
}

// hashFor returns the hash to compare with, and whether a password that fits it may log in.
func (v *Verifier) hashFor(t *Table, local string) (hash string, may bool) {
	u, ok := t.Lookup(local)
	switch {
	case ok:
		return u.Hash, !u.Disabled
	case t.len() == 0:
		return v.standIn, false
	}
	sum := v.mac("unknown user", local)
	return t.users[binary.BigEndian.Uint64(sum[:8])%uint64(t.len())].Hash, false
}

func (v *Verifier) loginKey(addr, hash, password string) loginKey {
	return v.mac("login", addr, hash, password)
}

// mac is HMAC-SHA256 (RFC 2104) over the parts, each with its length before it so that no byte
// can move from one part to the next.
func (v *Verifier) mac(parts ...string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, v.secret[:])
	var size [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(size[:], uint64(len(p)))
		h.Write(size[:])
		h.Write([]byte(p))
	}
	h.Sum(sum[:0])
	return sum
}

// acquire waits for the turn to compare; first come, first served.
func (v *Verifier) acquire(ctx context.Context) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
	}
	select {
	case v.turn <- struct{}{}:
		return nil
	default:
	}
	defer v.waiting.Add(-1)
	if v.waiting.Add(1) > int64(v.opt.MaxWaiting) {
		return ErrBusy
	}
	select {
	case v.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrBusy, context.Cause(ctx))
	}
}

func (v *Verifier) release() { <-v.turn }

func (v *Verifier) remembered(key loginKey) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	until, ok := v.expiry[key]
	return ok && v.opt.Now().Before(until)
}

// remember notes a right login. All are kept equally long, so the oldest ends first; what has
// ended, and the oldest where there are too many, is forgotten here.
func (v *Verifier) remember(key loginKey) {
	v.mu.Lock()
	defer v.mu.Unlock()
	now := v.opt.Now()
	for len(v.inOrder) > 0 {
		oldest := v.inOrder[0]
		if len(v.inOrder) < v.opt.MaxRemembered && now.Before(v.expiry[oldest]) {
			break
		}
		delete(v.expiry, oldest)
		v.inOrder = v.inOrder[1:]
	}
	v.expiry[key] = now.Add(v.opt.Remember)
	v.inOrder = append(v.inOrder, key)
}
