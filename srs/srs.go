// Package srs rewrites reverse-paths, so that a forwarded message leaves with a sender in a
// domain of ours that passes SPF, and undoes it when a bounce comes back. It follows the Sender
// Rewriting Scheme as postsrsd writes it (there is no RFC):
//
//	SRS0=HASH=TT=domain=local@ours    a sender rewritten for the first time
//	SRS1=HASH=hop==HASH=TT=…@ours     one that the forwarder hop has already rewritten
//	SRS0=HASH=TT==token@ours          a sender too long for that, kept in a TokenStore
//
// HASH is the beginning of a base64 HMAC-SHA1, TT the day modulo 1024 in base32. What is signed
// is put in lower case first, and the hash is compared without case, because some mailers fold
// the case of a local part. Only what one of our secrets signed is ever turned back, so nobody
// can send mail to third parties through these addresses.
package srs

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"relayd/address"
)

const (
	defaultMaxAge = 21 * day
	day           = 24 * time.Hour
	hashLength    = 8 // base64 characters: 48 bits, some less as case does not count
	separators    = "=+-"
)

// Errors of Forward and Reverse.
var (
	ErrNotSRS  = errors.New("not an SRS address")
	ErrForged  = errors.New("SRS address that no secret of ours signed")
	ErrExpired = errors.New("SRS address older than it may be")
	ErrTooLong = errors.New("sender too long to be rewritten")
)

// Options are what a Rewriter works with.
type Options struct {
	Secrets [][]byte      // at least one; the first signs, all verify
	MaxAge  time.Duration // how long a rewritten address is good for, in whole days from 1 to 1000; 0 means 21 days
	Tokens  TokenStore    // for senders too long to be rewritten in place; nil refuses them with ErrTooLong
}

// A TokenStore remembers senders under short names. It must be safe for concurrent use.
type TokenStore interface {
	// Put returns the token of sender, lower-case letters and digits and at most 40 of them, once
	// it is certain that Get will know it until expires. The same sender gets the same token.
	Put(sender string, expires time.Time) (token string, err error)
	// Get returns the sender of a token, with the case it had in Put.
	Get(token string) (sender string, ok bool)
}

// A Rewriter rewrites senders and restores them. It is safe for concurrent use.
type Rewriter struct {
	secrets [][]byte
	maxDays int64
	tokens  TokenStore
}

// New checks opt.
func New(opt Options) (*Rewriter, error) {
	if opt.MaxAge == 0 {
		opt.MaxAge = defaultMaxAge
	}
	switch {
	case len(opt.Secrets) == 0:
		return nil, errors.New("srs: no secret to sign with")
	case slices.ContainsFunc(opt.Secrets, func(s []byte) bool { return len(s) == 0 }):
		return nil, errors.New("srs: an empty secret")
	case opt.MaxAge < day || opt.MaxAge > 1000*day:
		return nil, fmt.Errorf("srs: a maximum age of %v is not from 1 to 1000 days", opt.MaxAge)
	}
	r := &Rewriter{maxDays: int64(opt.MaxAge / day), tokens: opt.Tokens}
	for _, s := range opt.Secrets {
		r.secrets = append(r.secrets, slices.Clone(s))
	}
	return r, nil
}

// IsSRS reports whether a local part is one that rewriting makes, by us or by others: it begins
// with SRS0 or SRS1 in any case and one of "=", "+" and "-".
func IsSRS(local string) bool {
	return len(local) > 4 && strings.EqualFold(local[:3], "SRS") &&
		(local[3] == '0' || local[3] == '1') && strings.IndexByte(separators, local[4]) >= 0
}

// Forward rewrites sender for a copy that leaves through srsDomain, which is in the form that
// address.Domain makes. The null sender stays null, and so does an address that is ours already
// and still good. It returns ErrTooLong for a sender that fits into no address, and errors of
// the TokenStore; it reads nothing but now for the time.
func (r *Rewriter) Forward(sender address.Address, srsDomain string, now time.Time) (address.Address, error) {
	if sender.IsNull() {
		return sender, nil
	}
	if sender.Domain == srsDomain {
		if _, err := r.Reverse(sender, now); err == nil {
			return sender, nil
		}
	}
	var a, back address.Address
	if hop, inner, ok := rewrittenBy(sender); ok {
		a = address.Address{Local: "SRS1=" + r.sign(hop+inner) + "=" + hop + "=" + inner, Domain: srsDomain}
		back = address.Address{Local: "SRS0" + inner, Domain: hop}
	} else {
		tt := timestamp(now)
		hash := r.sign(tt + sender.Domain + sender.Local)
		a = address.Address{Local: "SRS0=" + hash + "=" + tt + "=" + sender.Domain + "=" + sender.Local, Domain: srsDomain}
		back = sender
	}
	if fits(a) {
		return a, nil
	}
	return r.forwardToken(back, srsDomain, now)
}

// forwardToken makes an address that stands for back without containing it. The domain in it is
// empty, as no real one is.
func (r *Rewriter) forwardToken(back address.Address, srsDomain string, now time.Time) (address.Address, error) {
	if r.tokens == nil {
		return address.Address{}, fmt.Errorf("%s: %w", back, ErrTooLong)
	}
	token, err := r.tokens.Put(back.String(), now.Add(time.Duration(r.maxDays+1)*day))
	if err != nil {
		return address.Address{}, fmt.Errorf("storing the sender %s: %w", back, err)
	}
	tt := timestamp(now)
	a := address.Address{Local: "SRS0=" + r.sign(tt+token) + "=" + tt + "==" + token, Domain: srsDomain}
	if !fits(a) {
		return address.Address{}, fmt.Errorf("%s: %w", back, ErrTooLong)
	}
	return a, nil
}

// Reverse restores the sender that a was rewritten from, for a bounce on its way back; of an
// SRS1 address that is the SRS0 address of the first forwarder. It does not look at a's domain.
// It returns ErrNotSRS for any other address, ErrForged for one that no secret signed, and
// ErrExpired for one older than MaxAge, dated after tomorrow, or whose token is gone. An SRS1
// address carries no date of ours and does not expire: the first forwarder judges that.
func (r *Rewriter) Reverse(a address.Address, now time.Time) (address.Address, error) {
	if !IsSRS(a.Local) {
		return address.Address{}, ErrNotSRS
	}
	hash, rest, _ := strings.Cut(a.Local[5:], "=")
	if a.Local[3] == '1' {
		hop, inner, ok := strings.Cut(rest, "=")
		if !ok || !r.signed(hash, hop+inner) {
			return address.Address{}, ErrForged
		}
		return restored("SRS0"+inner, hop)
	}
	tt, rest, _ := strings.Cut(rest, "=")
	domain, local, ok := strings.Cut(rest, "=")
	if !ok || !r.signed(hash, tt+domain+local) {
		return address.Address{}, ErrForged
	}
	if !r.current(tt, now) {
		return address.Address{}, ErrExpired
	}
	if domain != "" {
		return restored(local, domain)
	}
	return r.reverseToken(strings.ToLower(local))
}

func (r *Rewriter) reverseToken(token string) (address.Address, error) {
	if r.tokens == nil {
		return address.Address{}, ErrExpired
	}
	sender, ok := r.tokens.Get(token)
	if !ok {
		return address.Address{}, ErrExpired
	}
	return address.Parse(sender)
}

// restored makes the address that was signed. One that is no mailbox has been signed by another
// program with our secret, or is a signature moved to where it does not belong.
func restored(local, domain string) (address.Address, error) {
	a, err := address.FromPath(local+"@"+domain, true)
	if err != nil {
		return address.Address{}, ErrForged
	}
	return a, nil
}

// rewrittenBy takes a sender apart that a forwarder has rewritten: the domain of the first one,
// and what stands in its address after SRS0, separator included. A sender that only looks like
// SRS1 is reported as not rewritten; it has to be forwarded like any other.
func rewrittenBy(sender address.Address) (hop, inner string, ok bool) {
	if !IsSRS(sender.Local) {
		return "", "", false
	}
	if sender.Local[3] == '0' {
		return sender.Domain, sender.Local[4:], true
	}
	_, rest, _ := strings.Cut(sender.Local[5:], "=")
	hop, inner, _ = strings.Cut(rest, "=")
	if inner == "" || strings.IndexByte(separators, inner[0]) < 0 {
		return "", "", false
	}
	first, err := address.FromPath("SRS0"+inner+"@"+hop, true)
	return first.Domain, inner, err == nil // else there is nowhere for it to come back to
}

// fits reports whether a keeps to the sizes of RFC 5321 section 4.5.3.1. The local part is
// counted with its quotes, as some hosts do.
func fits(a address.Address) bool {
	return len(address.QuoteLocal(a.Local)) <= address.MaxLocal && len(a.String()) <= address.MaxPath
}

// sign makes the hash of text with the first secret.
func (r *Rewriter) sign(text string) string {
	return base64.RawURLEncoding.EncodeToString(mac(r.secrets[0], text))[:hashLength]
}

// signed reports whether hash, of 8 or more characters, is that of text under any secret. It
// takes as long whichever secret and character decide.
func (r *Rewriter) signed(hash, text string) bool {
	if len(hash) < hashLength {
		return false
	}
	hash = foldHash(hash)
	match := 0
	for _, secret := range r.secrets {
		want := foldHash(base64.RawURLEncoding.EncodeToString(mac(secret, text)))
		want = want[:min(len(hash), len(want))]
		match |= subtle.ConstantTimeCompare([]byte(hash), []byte(want))
	}
	return match == 1
}

// foldHash makes hashes comparable without case and in both alphabets of base64.
func foldHash(s string) string {
	return strings.NewReplacer("-", "+", "_", "/").Replace(strings.ToLower(s))
}

func mac(secret []byte, text string) []byte {
	m := hmac.New(sha1.New, secret)
	m.Write([]byte(strings.ToLower(text)))
	return m.Sum(nil)
}
