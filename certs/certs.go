// Package certs chooses the certificate that a TLS client is shown. It reads pairs that other
// programs (certbot, acme.sh, Caddy, a person; room acme, to a second DIR) write to
// DIR/NAME/fullchain.pem and privkey.pem, takes new ones up when the files change, and never writes there.
//
// A pair takes effect only whole: both files parse, belong together and are valid now. Until then
// the last good pair of that NAME stays in force, and the list of problems says why. Where there is
// no pair at all, a self-signed certificate made in memory keeps opportunistic TLS between mail
// servers going; Real tells that it is no proof of a name.
//
// The choice by server name is that of RFC 6066 section 3 with wildcards by RFC 9525 section 6.3.
package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"relayd/problem"
	"relayd/tasks"
)

// Options are the settings of a Store.
type Options struct {
	Dir      string           // the folder of pairs; "" for none
	Second   string           // another one, whose pairs come after those of Dir for the same name; "" for none
	Hostname string           // the server's own name, for clients that ask for none or an unknown one
	Log      *slog.Logger     // what changes, and every new problem; nil for none
	Now      func() time.Time // time.Now
}

// A Store holds the certificates in force. It is safe for concurrent use; a handshake never waits
// for a reload.
type Store struct {
	opt     Options
	current atomic.Pointer[table]

	mu       sync.Mutex       // held by a reload
	folders  []*folder        // the first come first
	fallback *tls.Certificate // the self-signed certificate, once it was needed
	problems problem.List
}

// New reads the folder. The Store works whatever the problems are, if need be with a self-signed
// certificate.
func New(opt Options) (*Store, problem.List) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	opt.Hostname = canonical(opt.Hostname)
	s := &Store{opt: opt}
	for _, dir := range []string{opt.Dir, opt.Second} {
		s.folders = append(s.folders, &folder{dir: dir, pairs: make(map[string]*pair)})
	}
	return s, s.Reload()
}

// TLSConfig returns a server's configuration: TLS 1.2 or later, session tickets, the certificate by
// server name. It follows every reload; one is enough for all listeners, and shares their tickets.
func (s *Store) TLSConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: s.certificate}
}

var errNone = errors.New("certs: there is no certificate, and a self-signed one could not be made")

func (s *Store) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	candidates := s.current.Load().find(hello.ServerName)
	if len(candidates) == 0 {
		return nil, errNone
	}
	// Of pairs that differ only in the kind of key, the client gets one that it can use. It is asked
	// without the name, which a certificate chosen for want of a better one does not have.
	nameless := *hello
	nameless.ServerName = ""
	for _, c := range candidates {
		if nameless.SupportsCertificate(c.cert) == nil {
			return c.cert, nil
		}
	}
	return candidates[0].cert, nil
}

// Real reports whether a client that asks for serverName ("" for none) is shown a certificate from
// the folder, and not the self-signed one. The certificate may be one for another name.
func (s *Store) Real(serverName string) bool {
	candidates := s.current.Load().find(serverName)
	return len(candidates) > 0 && !candidates[0].info.SelfSigned
}

// Reload looks for changes, applies what is good, and returns everything that is wrong now. It is
// cheap when nothing has changed, so that an owner may call it every few seconds.
func (s *Store) Reload() problem.List {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opt.Now()
	var changed, entries []*entry
	var problems problem.List
	for _, f := range s.folders {
		fresh, wrong := f.scan(now)
		changed, problems, entries = append(changed, fresh...), append(problems, wrong...), append(entries, f.entries()...)
	}
	if len(entries) == 0 {
		e, err := s.selfSigned(now)
		if err != nil {
			problems = append(problems, problem.At(s.opt.Dir, 0, "making a self-signed certificate: %v", err))
		} else {
			entries = append(entries, e)
		}
	}
	for _, e := range changed {
		s.opt.Log.Info("certificate in force", "name", e.info.Name, "names", e.info.Names, "not_after", e.info.NotAfter)
	}
	for _, p := range problems {
		if !slices.Contains(s.problems, p) {
			s.opt.Log.Error("certificate problem", "file", p.File, "reason", p.Reason)
		}
	}
	s.problems = problems
	s.current.Store(newTable(entries, s.opt.Hostname, now))
	return slices.Clone(problems)
}

// selfSigned returns the certificate for when there is none, and says so each time that it comes
// into force.
func (s *Store) selfSigned(now time.Time) (*entry, error) {
	if s.fallback == nil {
		cert, err := SelfSigned(s.opt.Hostname, now)
		if err != nil {
			return nil, err
		}
		s.fallback = &cert
	}
	if t := s.current.Load(); t == nil || !slices.ContainsFunc(t.entries, func(e *entry) bool { return e.info.SelfSigned }) {
		s.opt.Log.Warn("NO CERTIFICATE: using a self-signed one that no client trusts; mail programs will refuse to log in",
			"hostname", s.opt.Hostname, "folder", s.opt.Dir)
	}
	e := newEntry("", "", s.fallback)
	e.info.SelfSigned = true
	return e, nil
}

// Watch reloads at every interval until ctx ends. The caller owns the goroutine that it runs in.
func (s *Store) Watch(ctx context.Context, every time.Duration) {
	tasks.Every(ctx, every, func() { s.Reload() })
}

// Problems returns what was wrong at the last reload.
func (s *Store) Problems() problem.List {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.problems)
}

// An Info describes a certificate in force.
type Info struct {
	Name       string    `json:"name"`  // of its folder; "" for the self-signed one
	Names      []string  `json:"names"` // the DNS names it is for, in lower case
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
	Issuer     string    `json:"issuer"`
	File       string    `json:"file,omitempty"` // its fullchain.pem
	SelfSigned bool      `json:"self_signed"`    // made here because there is no other
}

// List returns the certificates in force, by their folders.
func (s *Store) List() []Info {
	var list []Info
	for _, e := range s.current.Load().entries {
		info := e.info
		info.Names = slices.Clone(info.Names)
		list = append(list, info)
	}
	return list
}

// canonical brings the name that a client asks for into the form of the table.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
