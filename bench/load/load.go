// Package load makes mail: many connections at once submit small messages, each with an ID of its
// own, until they are told to stop or the server goes away. It tells exactly which messages the
// server has answered for, so that tests can find out whether they arrive.
package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/smtp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options say what is sent where. Addr, From and To are required.
type Options struct {
	Addr        string
	TLS         *tls.Config // implicit TLS; nil for none
	User        string      // with it, AUTH PLAIN comes first
	Password    string
	From        string // reverse-path and author
	To          string // forward-path
	Connections int    // at once; 1 when 0
	Size        int    // of a body in bytes, about
	Prefix      string // of the IDs, to tell runs apart
	// Again are IDs that are sent before new ones, as a sender does who had no answer.
	Again []string
	// Every is how often each connection sends; 0: as soon as it has its answer.
	Every time.Duration
	// Accepted is called for every message that was accepted, as soon as the answer is there, from
	// its connection's goroutine. It may be nil.
	Accepted func(id string)
}

// A Generator is one run. Its methods are safe for concurrent use.
type Generator struct {
	opt        Options
	next       atomic.Int64
	mu         sync.Mutex
	accepted   []string
	unanswered []string
	forwarded  int
	more       chan struct{} // closed and replaced at every accepted message
}

// New makes a Generator that has not sent anything yet.
func New(opt Options) *Generator {
	opt.Connections = max(1, opt.Connections)
	return &Generator{opt: opt, more: make(chan struct{})}
}

// Run sends until ctx ends or the server is gone: every connection goes on until it breaks. It
// returns the first error of each that is not such an end, joined.
func (g *Generator) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	errs := make([]error, g.opt.Connections)
	for i := range errs {
		wg.Go(func() {
			// One after the other, for in step they would send in bursts.
			if pause(ctx, g.opt.Every*time.Duration(i)/time.Duration(len(errs))) == nil {
				errs[i] = g.connection(ctx)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Accepted returns the IDs of all messages that the server has taken responsibility for.
func (g *Generator) Accepted() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return append([]string(nil), g.accepted...)
}

// Unanswered returns the IDs of Again, and of those that were begun, which the server has not accepted.
// It is called after Run.
func (g *Generator) Unanswered() []string {
	return append(g.unanswered, g.opt.Again[min(int(g.next.Load()), len(g.opt.Again)):]...)
}

// Forwarded counts the messages that the server said it had forwarded already when it accepted them.
func (g *Generator) Forwarded() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.forwarded
}

// Wait returns when n messages were accepted, or with ctx's error.
func (g *Generator) Wait(ctx context.Context, n int) error {
	for {
		g.mu.Lock()
		have, more := len(g.accepted), g.more
		g.mu.Unlock()
		if have >= n {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d messages accepted: %w", have, n, ctx.Err())
		}
	}
}

func (g *Generator) connection(ctx context.Context) error {
	conn, err := g.dial(ctx)
	if err != nil {
		return nil // the server is gone
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	host, _, _ := net.SplitHostPort(g.opt.Addr)
	conn.SetDeadline(time.Now().Add(10 * time.Minute))
	c, err := smtp.NewClient(conn, host)
	if err == nil && g.opt.User != "" {
		err = c.Auth(plain{g.opt.User, g.opt.Password})
	}
	for err == nil {
		next := time.Now().Add(g.opt.Every)
		conn.SetDeadline(time.Now().Add(10 * time.Minute))
		if err = g.send(c); err == nil {
			err = pause(ctx, time.Until(next))
		}
	}
	if answered := new(smtpError); errors.As(err, &answered) {
		return err
	}
	return nil
}

// pause waits, and returns ctx's error if that ends first.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *Generator) dial(ctx context.Context) (net.Conn, error) {
	if g.opt.TLS != nil {
		return (&tls.Dialer{Config: g.opt.TLS}).DialContext(ctx, "tcp", g.opt.Addr)
	}
	return new(net.Dialer).DialContext(ctx, "tcp", g.opt.Addr)
}

// An smtpError is a refusal where none was expected.
type smtpError struct{ err error }

func (e *smtpError) Error() string { return "refused: " + e.err.Error() }
func (e *smtpError) Unwrap() error { return e.err }

// id is that of the next message to be sent.
func (g *Generator) id() string {
	n := int(g.next.Add(1))
	if n <= len(g.opt.Again) {
		return g.opt.Again[n-1]
	}
	return fmt.Sprintf("%s-%d", g.opt.Prefix, n-len(g.opt.Again))
}

// send submits one message and notes what became of it.
func (g *Generator) send(c *smtp.Client) error {
	id := g.id()
	answer, err := g.submit(c, id)
	if err == nil && g.opt.Accepted != nil {
		g.opt.Accepted(id)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if err != nil {
		g.unanswered = append(g.unanswered, id)
		return refusal(err)
	}
	if strings.Contains(answer, "forwarded as") {
		g.forwarded++
	}
	g.accepted = append(g.accepted, id)
	close(g.more)
	g.more = make(chan struct{})
	return nil
}

// submit returns the answer to the final dot.
func (g *Generator) submit(c *smtp.Client, id string) (answer string, err error) {
	if err := c.Mail(g.opt.From); err != nil {
		return "", err
	}
	if err := c.Rcpt(g.opt.To); err != nil {
		return "", err
	}
	if err := c.Text.PrintfLine("DATA"); err != nil { // Client.Data keeps the answer to itself
		return "", err
	}
	if _, _, err := c.Text.ReadResponse(354); err != nil {
		return "", err
	}
	w := c.Text.DotWriter()
	fmt.Fprintf(w, "From: <%s>\r\nTo: <%s>\r\nSubject: load\r\n%s: %s\r\n%s: %d\r\n\r\n%s", g.opt.From, g.opt.To, field, id, sizeField, g.opt.Size, body(id, g.opt.Size))
	if err := w.Close(); err != nil {
		return "", err
	}
	_, answer, err = c.Text.ReadResponse(250)
	return answer, err
}

// refusal tells an answer from a connection that broke. 421 comes with the end of a connection.
func refusal(err error) error {
	code, _, _ := strings.Cut(err.Error(), " ")
	if len(code) == 3 && strings.Trim(code, "0123456789") == "" && code != "421" {
		return &smtpError{err}
	}
	return err
}

// The fields by which a message is known again.
const (
	field     = "X-Load-ID"
	sizeField = "X-Load-Size"
)

// body is size octets or a line more, different for every message and line.
func body(id string, size int) string {
	var b strings.Builder
	for line := 0; b.Len() < size; line++ {
		fmt.Fprintf(&b, "%s %d %s\r\n", id, line, strings.Repeat("x", 50))
	}
	return b.String()
}

// ID is that of a message as it arrived, "" for one that was not made here.
func ID(message []byte) string { return value(message, field) }

// Whole reports whether a message arrived with the body that it was sent with, byte for byte.
func Whole(message []byte) bool {
	_, got, ok := strings.Cut(string(message), "\r\n\r\n")
	size, err := strconv.Atoi(value(message, sizeField))
	return ok && err == nil && got == body(ID(message), size)
}

// value is that of a field of ours.
func value(message []byte, name string) string {
	for line := range strings.SplitSeq(string(message), "\r\n") {
		if v, ok := strings.CutPrefix(line, name+": "); ok {
			return v
		}
		if line == "" {
			break
		}
	}
	return ""
}

// plain is AUTH PLAIN without net/smtp's own judgement of when that is safe.
type plain struct{ user, password string }

func (p plain) Start(*smtp.ServerInfo) (string, []byte, error) {
	return "PLAIN", []byte("\x00" + p.user + "\x00" + p.password), nil
}

func (p plain) Next([]byte, bool) ([]byte, error) { return nil, nil }
