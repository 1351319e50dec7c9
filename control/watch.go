package control

import (
	"context"
	"io"
	"time"
)

// A watched answer is given up when nothing of it comes for too long. Only the time that somebody
// waits for it counts: who shows it may take its time.
type watched struct {
	io.ReadCloser // the answer, once it is there
	ctx           context.Context
	end           context.CancelCauseFunc
	wait          time.Duration // 0: for ever
	timer         *time.Timer
}

// watchOver returns the context for a request whose answer is watched.
func watchOver(ctx context.Context, wait time.Duration) (context.Context, *watched) {
	ctx, end := context.WithCancelCause(ctx)
	return ctx, &watched{ctx: ctx, end: end, wait: wait}
}

func (w *watched) begin() {
	switch {
	case w.wait == 0:
	case w.timer == nil:
		w.timer = time.AfterFunc(w.wait, func() { w.end(errSilent) })
	default:
		w.timer.Reset(w.wait)
	}
}

func (w *watched) rest() {
	if w.timer != nil {
		w.timer.Stop()
	}
}

// cause is err, or that which has ended the context before.
func (w *watched) cause(err error) error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	return err
}

func (w *watched) Read(b []byte) (int, error) {
	w.begin()
	defer w.rest()
	n, err := w.ReadCloser.Read(b)
	if err != nil && err != io.EOF {
		err = w.cause(err)
	}
	return n, err
}

func (w *watched) Close() error {
	w.rest()
	defer w.end(nil)
	return w.ReadCloser.Close()
}
