package queue

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"relayd/address"
)

var quiet = slog.New(slog.DiscardHandler)

func byDomain(r *Recipient) string { return r.Address.Domain }

func addr(t testing.TB, s string) address.Address {
	t.Helper()
	a, err := address.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// newEnvelope is a message of a local user's to these.
func newEnvelope(t testing.TB, id string, to ...string) *Envelope {
	t.Helper()
	e := &Envelope{ID: id, Received: time.Now().Round(0), Sender: addr(t, "me@example.org"), User: addr(t, "me@example.org"), Authentic: true}
	for _, a := range to {
		e.Recipients = append(e.Recipients, Recipient{Address: addr(t, a), Status: Status{State: Waiting, Next: e.Received}})
	}
	return e
}

// open opens the store in dir on m, with small segments.
func open(t testing.TB, m FS, dir string) *LogStore {
	t.Helper()
	s, err := OpenStore(StoreOptions{Dir: dir, FS: m, Group: byDomain, Log: quiet, segmentSize: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func add(t testing.TB, s Store, e *Envelope, body string) {
	t.Helper()
	if err := s.Add(e, strings.NewReader(body)); err != nil {
		t.Fatalf("adding %s: %v", e.ID, err)
	}
}

func bodyOf(t testing.TB, s Store, id string) string {
	t.Helper()
	r, err := s.Body(id)
	if err != nil {
		t.Fatalf("body of %s: %v", id, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func listed(s Store) (ids []string) {
	s.Search("", func(e *Envelope) bool { ids = append(ids, e.ID); return true })
	return ids
}

// text is an envelope in a form that can be compared; "" for nil.
func text(e *Envelope) string {
	if e == nil {
		return ""
	}
	b, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// deliverer does as its function says.
type deliverer struct {
	group   func(*Recipient) string
	deliver func(ctx context.Context, w *Work) []Outcome
}

func (d *deliverer) Group(r *Recipient) string { return d.group(r) }

func (d *deliverer) Deliver(ctx context.Context, w *Work) []Outcome {
	return d.deliver(ctx, w)
}

// all gives every recipient of w the same outcome.
func all(w *Work, o Outcome) []Outcome {
	list := make([]Outcome, len(w.Indexes))
	for n := range list {
		list[n] = o
	}
	return list
}

// A logBuffer keeps a log to be read.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
