package acme

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"strconv"
	"sync"
	"time"
)

// do runs work in a goroutine, for the library cannot be told to end. Its requests to the CA fail
// once ctx has ended, so that it ends by itself soon; a DNS record may still be taken away then.
// Whoever does not come to an end is left behind, and keeps the next one from beginning.
func do[T any](ctx context.Context, c *Client, work func(context.Context, *session) (T, error)) (T, error) {
	var none T
	select {
	case c.slot <- struct{}{}:
	case <-ctx.Done():
		return none, errors.New("the order before this one has still not come to an end")
	}
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	s := &session{Client: c, ctx: ctx}
	go func() {
		defer func() { <-c.slot }()
		defer c.transport.CloseIdleConnections()
		var r result
		defer func() {
			if p := recover(); p != nil { // nobody above does, and it would end relayd
				c.opt.Log.Error("panic while ordering a certificate", "panic", p, "stack", string(debug.Stack()))
				r.err = fmt.Errorf("the order has made relayd fail, see its log: %v", p)
			}
			done <- r
		}()
		r.value, r.err = work(ctx, s)
	}()
	select {
	case r := <-done:
		return r.value, s.explain(r.err)
	case <-ctx.Done():
	}
	grace := time.NewTimer(endGrace)
	defer grace.Stop()
	select {
	case r := <-done:
		return r.value, s.explain(r.err)
	case <-grace.C:
		return none, fmt.Errorf("waiting for the certificate authority: %w", ctx.Err())
	}
}

// endGrace is how long the library has to come to its end when it should.
const endGrace = 8 * time.Second

// A session is the way to the CA for one order or question.
type session struct {
	*Client
	ctx context.Context

	mu    sync.Mutex
	after time.Duration // the CA's Retry-After beside an error
}

// How slowly to ask whether an order is ready: the CA's wish, within bounds. Where it has none, the
// library would take five seconds, in which most orders are long ready.
const (
	usualPoll   = 2 * time.Second
	longestPoll = 10 * time.Second
)

// RoundTrip lets requests end with the session, and sees what the library does not.
func (s *session) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancel(r.Context())
	context.AfterFunc(s.ctx, cancel)
	resp, err := s.transport.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel()
		return nil, err
	}
	resp.Body = &body{Reader: io.LimitReader(resp.Body, 1<<20), Closer: resp.Body, cancel: cancel}
	after := retryAfter(resp.Header.Get("Retry-After"), resp.Header.Get("Date"))
	switch {
	case resp.StatusCode >= 400 && after > 0:
		s.mu.Lock()
		s.after = max(s.after, after)
		s.mu.Unlock()
	case r.Method == http.MethodPost:
		resp.Header.Set("Retry-After", strconv.Itoa(int(min(cmp.Or(after, usualPoll), longestPoll).Seconds())))
	}
	return resp, nil
}

// A body is one that ends somewhere.
type body struct {
	io.Reader
	io.Closer
	cancel context.CancelFunc
}

func (b *body) Close() error {
	defer b.cancel()
	return b.Closer.Close()
}

// explain adds to an error what the session knows of it.
func (s *session) explain(err error) error {
	if err == nil {
		return nil
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		err = fmt.Errorf("%w: is the clock of this machine right?", err)
	}
	if ended := s.ctx.Err(); ended != nil && !errors.Is(err, ended) { // what was cut off may look like an answer
		err = fmt.Errorf("%w: %w", ended, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.after > 0 {
		return &WaitError{Err: err, After: s.after}
	}
	return err
}

// retryAfter reads the field of RFC 9110 section 10.2.3. A time in it is counted from the server's own
// clock, where it tells that. It is 0 for one that says nothing, and longestPause at most.
func retryAfter(value, date string) time.Duration {
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return min(time.Duration(seconds)*time.Second, longestPause)
	}
	until, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	from, err := http.ParseTime(date)
	if err != nil {
		from = time.Now()
	}
	return min(max(0, until.Sub(from)), longestPause)
}
