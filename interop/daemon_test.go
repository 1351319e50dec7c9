//go:build interop

package interop

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A daemon is one run of relayd.
type daemon struct {
	t    testing.TB
	cmd  *exec.Cmd
	log  *logbook
	done chan struct{} // closed when the process has ended
}

// start starts relayd and returns when it is up. It is stopped with the test.
func (s *site) start() *daemon {
	s.t.Helper()
	d := s.launch(s.command(program(s.t, "relayd"), "-c", s.config()))
	d.awaitUp()
	return d
}

// launch starts a command that is, or becomes, relayd.
func (s *site) launch(cmd *exec.Cmd) *daemon {
	s.t.Helper()
	d := &daemon{t: s.t, cmd: cmd, log: newLogbook(), done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = d.log, d.log
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("starting %v: %v", cmd.Args, err)
	}
	go func() {
		defer close(d.done)
		_ = cmd.Wait() // its state tells
	}()
	s.t.Cleanup(func() {
		d.stop()
		if d.log.has("panic") {
			s.t.Error("the log speaks of a panic")
		}
		if d.log.has("DATA RACE") { // it was built with -race
			s.t.Errorf("the race detector:\n%s", d.log.tail(200))
		}
		if s.t.Failed() {
			s.t.Logf("the end of the log:\n%s", d.log.tail(20))
		}
	})
	return d
}

// awaitUp waits until relayd says that it is up.
func (d *daemon) awaitUp() {
	d.t.Helper()
	d.log.await(d.t, "relayd is up", func(l logLine) bool { return l.text("msg") == "relayd is up" }, d.done)
}

// address is where a service listens: smtp, submission or submissions.
func (d *daemon) address(service string) string {
	d.t.Helper()
	l := d.log.await(d.t, service+" listens", func(l logLine) bool {
		return l.text("msg") == "listening" && l.text("service") == service
	}, d.done)
	return l.text("address")
}

// port is the port of address.
func (d *daemon) port(service string) string {
	d.t.Helper()
	addr := d.address(service)
	return addr[strings.LastIndexByte(addr, ':')+1:]
}

// stop asks for an orderly end and waits for it.
func (d *daemon) stop() {
	d.t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	select {
	case <-d.done:
	case <-time.After(patience):
		d.t.Errorf("relayd does not end within %s of SIGTERM", patience)
		d.kill()
	}
}

// kill ends the process without a warning.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill() // it may have ended already
	<-d.done
}

// exitCode waits for the process to end by itself.
func (d *daemon) exitCode() int {
	d.t.Helper()
	select {
	case <-d.done:
	case <-time.After(patience):
		d.t.Fatal("relayd runs on")
	}
	return d.cmd.ProcessState.ExitCode()
}

// A logLine is one line of the log, as JSON; other output has only its "msg".
type logLine map[string]any

func (l logLine) text(key string) string {
	if l[key] == nil {
		return ""
	}
	return fmt.Sprint(l[key])
}

// A logbook takes a program's output and lets tests wait for lines.
type logbook struct {
	mu      sync.Mutex
	partial []byte
	raw     []string
	lines   []logLine
	more    chan struct{} // closed and replaced at every line
}

func newLogbook() *logbook { return &logbook{more: make(chan struct{})} }

// Write takes output in pieces.
func (b *logbook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.partial = append(b.partial, p...)
	for {
		text, rest, ok := bytes.Cut(b.partial, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		line := logLine{}
		if json.Unmarshal(text, &line) != nil {
			line = logLine{"msg": string(text)}
		}
		b.raw, b.lines = append(b.raw, string(text)), append(b.lines, line)
		b.partial = bytes.Clone(rest)
		close(b.more)
		b.more = make(chan struct{})
	}
}

// mark is the place of the next line, for awaitAfter.
func (b *logbook) mark() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.lines)
}

// await returns the first line that fits, waiting for it unless gone is closed.
func (b *logbook) await(t testing.TB, what string, fits func(logLine) bool, gone <-chan struct{}) logLine {
	t.Helper()
	return b.awaitAfter(t, 0, what, fits, gone)
}

// awaitAfter is await for lines from a mark on.
func (b *logbook) awaitAfter(t testing.TB, at int, what string, fits func(logLine) bool, gone <-chan struct{}) logLine {
	t.Helper()
	limit := time.After(patience)
	for {
		b.mu.Lock()
		lines, more := b.lines, b.more
		b.mu.Unlock()
		for ; at < len(lines); at++ {
			if fits(lines[at]) {
				return lines[at]
			}
		}
		select {
		case <-more:
		case <-gone:
			gone = nil
			limit = time.After(100 * time.Millisecond) // for what it said last
		case <-limit:
			t.Fatalf("the log does not say that %s:\n%s", what, b.tail(40))
		}
	}
}

// has reports whether the text stands anywhere.
func (b *logbook) has(text string) bool { return strings.Contains(b.tail(1<<30), text) }

// tail is the last n lines.
func (b *logbook) tail(n int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Join(b.raw[max(0, len(b.raw)-n):], "\n")
}
