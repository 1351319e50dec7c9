package queue

import (
	"cmp"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"relayd/reply"
)

// A rig is a queue in a folder, with a deliverer that a test writes. It is used inside a bubble
// of synctest; DSNs are taken and kept in dsns.
type rig struct {
	*Queue
	t      *testing.T
	store  *LogStore
	disk   *memFS
	dir    string
	log    *logBuffer
	claims atomic.Int64
	jump   atomic.Int64 // what the clock is wrong by, as a Duration
	stop   func()       // ends Run and waits for it
	group  func(*Recipient) string
	learn  func(context.Context, *Recipient)

	mu   sync.Mutex
	dsns []string
}

// claimCounter counts how often a scheduler asks for work.
type claimCounter struct {
	Store
	n *atomic.Int64
}

func (c claimCounter) Claim(now time.Time, limit int, free func(string, int) bool) ([]*Work, time.Time) {
	c.n.Add(1)
	return c.Store.Claim(now, limit, free)
}

// A learner is a deliverer that learns groups by the rig's function.
type learner struct {
	deliverer
	rig *rig
}

func (l *learner) Learn(ctx context.Context, r *Recipient) { l.rig.learn(ctx, r) }

// Learn of one that knows all groups.
func (d *deliverer) Learn(context.Context, *Recipient) {}

// newRig makes a queue that delivers to every recipient, and does not run it.
func newRig(t *testing.T, deliver func(ctx context.Context, w *Work) []Outcome) *rig {
	t.Helper()
	r := &rig{t: t, disk: newMemFS(), dir: "q", log: &logBuffer{}, stop: func() {}, group: byDomain, learn: func(context.Context, *Recipient) {}}
	r.restart(Options{}, deliver)
	return r
}

// restart opens the folder again, as after a crash; what is zero in opt gets a usual value.
func (r *rig) restart(opt Options, deliver func(ctx context.Context, w *Work) []Outcome) {
	r.t.Helper()
	usual := Options{
		Hostname: "mx.example.org", Lifetime: 120 * time.Hour, DelayWarning: 4 * time.Hour, Workers: 20, PerGroup: 2, Grace: 10 * time.Second,
		Sign: func(domain string, body io.Reader) (string, error) {
			_, err := io.Copy(io.Discard, body)
			return "DKIM-Signature: d=" + domain + "\r\n", err
		},
		Log: slog.New(slog.NewTextHandler(r.log, nil)),
		Now: func() time.Time { return time.Now().Add(time.Duration(r.jump.Load())) },
	}
	if opt.Lifetime != 0 {
		usual.Lifetime = opt.Lifetime
	}
	if opt.Sign != nil {
		usual.Sign = opt.Sign
	}
	usual.Workers, usual.PerGroup = cmp.Or(opt.Workers, usual.Workers), cmp.Or(opt.PerGroup, usual.PerGroup)
	store, err := OpenStore(StoreOptions{Dir: r.dir, FS: r.disk, Group: r.group, Log: quiet, segmentSize: 64 << 10})
	if err != nil {
		r.t.Fatal(err)
	}
	r.store = store
	d := &learner{rig: r, deliverer: deliverer{group: r.group, deliver: func(ctx context.Context, w *Work) []Outcome {
		if w.Envelope.Sender.IsNull() {
			r.keep(w)
			return all(w, Outcome{State: Delivered, Reply: reply.New(250, "2.0.0", "Ok")})
		}
		return deliver(ctx, w)
	}}}
	r.Queue = New(usual, claimCounter{r.store, &r.claims}, d)
}

func (r *rig) keep(w *Work) {
	body, err := w.Body()
	if err != nil {
		r.t.Error(err)
		return
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil {
		r.t.Error(err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dsns = append(r.dsns, string(b))
}

// run has the queue work until stop.
func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); r.Run(ctx) }()
	r.stop = func() { cancel(); <-ended; r.stop = func() {} }
}

// start runs the queue and gives it a message.
func (r *rig) start(e *Envelope) {
	r.t.Helper()
	r.run()
	r.add(e)
}

func (r *rig) add(e *Envelope) {
	r.t.Helper()
	if err := r.Add(e, strings.NewReader("Subject: hi\r\n\r\nHello\r\n")); err != nil {
		r.t.Fatal(err)
	}
}

// until waits until f holds, for as long as a clock can tell.
func (r *rig) until(what string, f func() bool) {
	r.t.Helper()
	for range 12 * 24 * 40 {
		synctest.Wait()
		if f() {
			return
		}
		time.Sleep(5 * time.Minute)
	}
	r.t.Fatalf("for 40 days not: %s", what)
}

func (r *rig) empty() bool { return r.left() == 0 }

// left is the number of messages in the queue.
func (r *rig) left() int {
	r.store.mu.Lock()
	defer r.store.mu.Unlock()
	return len(r.store.messages)
}

func (r *rig) count(word string) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.dsns {
		if strings.Contains(d, "\r\nAction: "+word+"\r\n") {
			n++
		}
	}
	return n
}

func bubble(t *testing.T, f func(t *testing.T)) { t.Helper(); synctest.Test(t, f) }

var (
	later  = Outcome{State: Waiting, Reply: reply.New(451, "4.7.1", "Try again later"), Host: "mx.one.test"}
	gone   = Outcome{State: Failed, Reply: reply.New(550, "5.1.1", "No such user"), Host: "mx.one.test"}
	taken  = Outcome{State: Delivered, Reply: reply.New(250, "2.0.0", "Ok"), Host: "mx.one.test"}
	onHold = Outcome{State: Held, Reply: reply.New(451, "4.2.1", "Nobody to take it")}
)
