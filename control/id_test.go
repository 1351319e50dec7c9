package control

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"

	"relayd/queue"
)

// A guarded queue has no message, and says what it was asked for.
type guarded struct {
	*fake
	t *testing.T
}

func (g guarded) Get(id string) (*queue.Envelope, error) {
	g.t.Errorf("the queue was asked for %q", id)
	return nil, queue.ErrNotFound
}

func (g guarded) Body(id string) (io.ReadCloser, error) {
	g.t.Errorf("the queue was asked for the body of %q", id)
	return nil, queue.ErrNotFound
}

func (g guarded) changed(verb, id string) error {
	g.t.Errorf("the queue was asked to %s %q", verb, id)
	return queue.ErrNotFound
}

func (g guarded) Retry(id string) error   { return g.changed("retry", id) }
func (g guarded) Hold(id string) error    { return g.changed("hold", id) }
func (g guarded) Release(id string) error { return g.changed("release", id) }
func (g guarded) Remove(id string) error  { return g.changed("remove", id) }

// TestNamesThatAreNoQueueIDs come no nearer to the queue, whose files have the names of messages.
func TestNamesThatAreNoQueueIDs(t *testing.T) {
	path := socketPath(t)
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	q := guarded{&fake{}, t}
	s := NewServer(q, q, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	defer func() {
		s.Close()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	c, ctx := NewClient(path), context.Background()
	for _, id := range []string{
		"", ".", "..", "../../etc/passwd", "AAAAAAAA/..", "../AAAAAAAA", "/etc/passwd", "AAAAAAAA/eml", `..\AAAAAAAA`, "AAAAAAA\x00", "AAAAAAAA\n", "%2e%2e%2fAAAAAAAA",
		"AAAAAAAA.eml", ".AAAAAAAA", "*", "AAAAAAA*", "short", strings.Repeat("A", 33), "ÄÄÄÄÄÄÄÄ", "~AAAAAAAA", "--all-AAAA",
	} {
		if _, err := c.Show(ctx, id); err == nil {
			t.Errorf("%q is shown", id)
		}
		if err := c.Export(ctx, id, io.Discard); err == nil {
			t.Errorf("%q is exported", id)
		}
		for _, verb := range []string{"retry", "hold", "release", "remove"} {
			if _, err := c.Change(ctx, verb, Selection{IDs: []string{id}}); err == nil {
				t.Errorf("%s of %q", verb, id)
			}
		}
	}
}
