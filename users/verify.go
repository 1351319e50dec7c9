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
	"net/netip"
	"runtime"
	"strings"
	"sync"
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
	MaxWaiting    int              // how many logins of each lane wait for their turn; 100
	MaxOfSource   int              // how many of them may be of one source; 50
	AtOnce        int              // comparisons at a time in each lane; half of the cores that may be used, 1 at least
	// Upgrade puts a hash by bcrypt where a right login has found one by scrypt, called old. The
	// login waits for it. nil leaves hashes as they are.
	Upgrade func(addr address.Address, old, hash string)
}

// A Verifier checks logins. Every one that is not remembered costs exactly one comparison with a hash.
// Sources that are known to be honest have a lane of their own, so that they never wait for those who
// guess; within a lane sources have their turns one after the other, however many logins each has
// waiting. After each comparison the lane of the others rests for as long as that took, which leaves
// most of the processors to everything else. It is safe for concurrent use.
type Verifier struct {
	opt     VerifierOptions
	known   *lane
	unknown *lane
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
	opt.MaxOfSource = cmp.Or(opt.MaxOfSource, 50)
	opt.AtOnce = cmp.Or(opt.AtOnce, max(1, runtime.GOMAXPROCS(0)/2))
	if opt.Now == nil {
		opt.Now = time.Now
	}
	v := &Verifier{
		opt:     opt,
		known:   newLane(opt),
		unknown: newLane(opt),
		standIn: fmt.Sprintf("$2y$%02d$%s", opt.Cost, strings.Repeat(".", 53)),
		compare: compareHash,
		expiry:  make(map[loginKey]time.Time),
	}
	rand.Read(v.secret[:]) // never fails: it ends the program first
	return v
}

// A Login is what a client says to be let in.
type Login struct {
	Table    *Table // nil for a domain that is not ours
	User     address.Address
	Password string
	Source   netip.Prefix // what has its turns as one
	Known    bool         // the source has logged in as this user before
	// Still, if it is not nil, is asked when the login has its turn whether it may go on: Verify returns
	// its error instead of a verdict.
	Still func() error
}

// Verify reports whether the password is right for the user. It returns ErrBusy, and no verdict, when
// too many logins wait already or ctx ends before this one has its turn.
//
// A wrong password, a disabled user, an unknown user and an unknown domain take one comparison
// each. For an unknown user that is with the hash of a user who exists, always the same one for
// the same name: where hashes differ in cost, the time tells no more about a name than that.
// A right login is remembered together with the hash it was checked against, so a changed hash
// and a disabled user are out as soon as t says so.
func (v *Verifier) Verify(ctx context.Context, l Login) (bool, error) {
	password := l.Password
	hash, may := v.hashFor(l.Table, l.User.Local)
	if CheckPassword(password) != nil {
		may = false
		// bcrypt looks at no more than this, and would find a longer password right.
		password = password[:min(len(password), MaxPassword)]
	}
	key := v.loginKey(l.User.Key(), hash, password)
	if may && v.remembered(key) {
		return true, nil
	}
	right, better, err := v.compareInTurn(ctx, l, try{key, hash, password, may})
	if better != "" {
		v.opt.Upgrade(l.User, hash, better)
	}
	return right, err
}

// A try is a password, the hash to compare it with, and whether it may be right.
type try struct {
	key            loginKey
	hash, password string
	may            bool
}

// compareInTurn waits for its turn and compares. better is the hash by bcrypt that should stand in
// place of the one that was right, "" for none.
func (v *Verifier) compareInTurn(ctx context.Context, l Login, t try) (right bool, better string, err error) {
	lane := v.unknown
	if l.Known {
		lane = v.known
	}
	if err := lane.acquire(ctx, l.Source); err != nil {
		return false, "", err
	}
	var took time.Duration // to compare
	defer func() {
		if l.Known || took == 0 {
			lane.release()
			return
		}
		// By the clock and not by the work done, so guesses get the less of the processors the more
		// these have to do.
		time.AfterFunc(took, lane.release)
	}()
	// An app that opens many connections at once logs in on all of them before the first is answered.
	if t.may && v.remembered(t.key) {
		return true, "", nil
	}
	if l.Still != nil {
		if err := l.Still(); err != nil {
			return false, "", err
		}
	}
	began := v.opt.Now()
	wrong := v.compare([]byte(t.hash), []byte(t.password))
	took = v.opt.Now().Sub(began)
	if wrong != nil || !t.may {
		return false, "", nil
	}
	v.remember(t.key)
	if v.opt.Upgrade == nil || !isScrypt(t.hash) {
		return true, "", nil
	}
	better, err = Hash(t.password, v.opt.Cost)
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
