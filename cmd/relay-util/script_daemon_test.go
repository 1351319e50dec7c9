package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"relayd/control"
	"relayd/problem"
	"relayd/queue"
)

// A scriptDaemon is a real queue behind a real socket, in which nothing is tried.
type scriptDaemon struct {
	store *queue.LogStore
}

func (d *scriptDaemon) Reload() problem.List { return nil }

func (d *scriptDaemon) Destinations() []control.Destination { return nil }

func (d *scriptDaemon) Bans(control.BanSelection) []control.Ban { return nil }

func (d *scriptDaemon) Unban(control.BanSelection) []control.Ban { return nil }

func (d *scriptDaemon) Status() control.Status {
	st, health := d.store.Stats(), d.store.Health()
	return control.Status{
		Version: "1.2", Queue: control.QueueStatus{Messages: st.Messages, Held: st.Held}, Health: control.Health{Damaged: health.Damaged},
	}
}

func (d *scriptDaemon) Send(context.Context, control.Sending, io.Reader) (*control.Sent, error) {
	return nil, errors.New("nothing is taken here")
}

func (d *scriptDaemon) CheckQueue(ctx context.Context, progress func(done, total int64)) (*queue.Report, error) {
	return d.store.Check(ctx, progress)
}

// daemon FILE... runs one until the next such line or the end of the script, with its queue in
// state/queue and its settings in relayd.toml. Each FILE has an envelope in its first line and the message behind that; where there
// is no size in the envelope the message is repeated until it is large.
func daemon(ts *testscript.TestScript, _ bool, args []string) {
	running := ts.Value(runningKey{}).(*func())
	if *running != nil {
		(*running)()
	}
	settings := fmt.Sprintf("hostname = \"mx.example.com\"\nstate_dir = %q\n", ts.MkAbs("state"))
	ts.Check(os.WriteFile(ts.MkAbs("relayd.toml"), []byte(settings), 0o600))
	log := slog.New(slog.DiscardHandler)
	store, err := queue.OpenStore(queue.StoreOptions{
		Dir: ts.MkAbs("state/queue"), Group: func(r *queue.Recipient) string { return r.Address.Domain }, Log: log,
	})
	ts.Check(err)
	q := queue.New(queue.Options{Log: log, Workers: 1, PerGroup: 1}, store, nil)
	for _, name := range args {
		head, body, _ := strings.Cut(ts.ReadFile(name), "\n")
		var e queue.Envelope
		ts.Check(json.Unmarshal([]byte(head), &e))
		if e.Size == 0 {
			body = strings.Repeat(body, 10_000)
		}
		if e.Received.IsZero() {
			e.Received = time.Now()
		}
		ts.Check(store.Add(&e, strings.NewReader(body)))
	}
	l, err := control.Listen(ts.MkAbs("state/control.sock"))
	ts.Check(err)
	server := control.NewServer(&scriptDaemon{store}, q, log)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	*running = sync.OnceFunc(func() {
		ts.Check(server.Close())
		ts.Check(<-ended)
		ts.Check(store.Close())
	})
	ts.Defer(*running)
}

// runningKey is under which a script knows how to stop its daemon.
type runningKey struct{}

// spoil FILE TEXT changes the first letter of a text that stands in a file.
func spoil(ts *testscript.TestScript, _ bool, args []string) {
	name := ts.MkAbs(args[0])
	data, err := os.ReadFile(name)
	ts.Check(err)
	i := bytes.Index(data, []byte(args[1]))
	if i < 0 {
		ts.Fatalf("%q does not stand in %s", args[1], args[0])
	}
	data[i] ^= 1
	ts.Check(os.WriteFile(name, data, 0o600))
}
