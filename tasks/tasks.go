// Package tasks does several things at once for one session or delivery, and keeps a panic in one of them
// where it belongs: a goroutine that nobody recovers ends the process and with it every other message. And
// it does one thing again and again.
package tasks

import (
	"fmt"
	"runtime/debug"
	"sync"
)

// A Group is functions that run at the same time, each in a goroutine of its own. The zero Group is
// ready. It is not to be copied.
type Group struct {
	all sync.WaitGroup

	mu    sync.Mutex
	first *Panic
}

// A Panic is what Wait panics with.
type Panic struct {
	Value any    // of the panic in the task
	Stack string // of its goroutine
}

func (p *Panic) Error() string { return fmt.Sprintf("in a task: %v\n%s", p.Value, p.Stack) }

// Go runs f.
func (g *Group) Go(f func()) {
	g.all.Go(func() {
		RoomyStack()
		defer func() {
			if v := recover(); v != nil {
				g.mu.Lock()
				defer g.mu.Unlock()
				if g.first == nil {
					g.first = &Panic{v, string(debug.Stack())}
				}
			}
		}()
		f()
	})
}

// Wait waits until all have returned. If any of them has panicked it panics with a *Panic, in the
// goroutine of who knows which message that was about. It is called once, after all calls of Go.
func (g *Group) Wait() {
	g.all.Wait()
	if g.first != nil {
		panic(g.first)
	}
}
