package relay

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"relayd/internal/sink"
	"relayd/queue"
)

// fourKiB is a message of about that size.
var fourKiB = "From: app@example.test\r\nSubject: load\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 52)

// submitMany puts n messages for one destination into the queue, several at a time.
func (w *world) submitMany(n int) {
	var wg sync.WaitGroup
	for k := range 8 {
		wg.Go(func() {
			for i := k; i < n; i += 8 {
				to := fmt.Sprintf("u%d@elsewhere.test", i)
				if _, _, err := w.offer(w.user("app@example.test"), "app@example.test", []string{to}, fourKiB); err != nil {
					w.t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// A connection bears 100 messages, and one more is opened when those before it have borne 25.
func TestFewConnectionsForManyMessages(t *testing.T) {
	const messages = 200
	w := openWorld(t, "", sink.Options{Discard: true})
	w.submitMany(messages)
	w.wait(messages)
	if most := 2 + messages/25; w.sink.Connections() > most {
		t.Errorf("%d connections, want at most %d", w.sink.Connections(), most)
	}
}

// BenchmarkQueueToOneHost counts connections on the way from submission to one host.
func BenchmarkQueueToOneHost(b *testing.B) {
	w := openWorldOf(b, "", sink.Options{Discard: true}, exampleTest)
	b.ResetTimer()
	w.submitMany(b.N)
	w.empty()
	b.ReportMetric(float64(w.sink.Connections())/float64(b.N)*100, "connections/100msg")
}

// A hundred recipients at one domain are one body on the wire.
func TestOneBodyForManyRecipients(t *testing.T) {
	w := openWorld(t, "", sink.Options{})
	rcpts := make([]string, 100)
	for i := range rcpts {
		rcpts[i] = fmt.Sprintf("u%d@elsewhere.test", i)
	}
	w.submit(w.user("app@example.test"), "app@example.test", rcpts, fourKiB)
	if m := w.wait(1)[0]; len(m.Rcpts) != 100 || w.sink.Connections() != 1 {
		t.Errorf("%d recipients over %d connections", len(m.Rcpts), w.sink.Connections())
	}
}

// A destination that refuses many messages at MAIL, and then no more, gets the next one: no slot was
// lost to those that failed.
func TestDestinationHeals(t *testing.T) {
	var healed atomic.Bool
	w := openWorld(t, "", sink.Options{Reply: func(stage, arg string, _ int) string {
		if stage == "mail" && arg != "" && !healed.Load() {
			return "550 5.7.1 not now"
		}
		return ""
	}})
	const messages = 100
	var wg sync.WaitGroup
	for k := range 8 {
		wg.Go(func() {
			for i := k; i < messages; i += 8 {
				to := fmt.Sprintf("u%d@elsewhere.test", i)
				_, _, _ = w.offer(w.user("app@example.test"), "app@example.test", []string{to}, "From: app@example.test\r\nAuto-Submitted: auto-generated\r\n\r\nx\r\n")
			}
		})
	}
	wg.Wait()
	w.empty()
	healed.Store(true)
	w.submit(w.user("app@example.test"), "app@example.test", []string{"a@elsewhere.test"}, fourKiB)
	w.wait(1)
	w.empty()
	for _, g := range w.work.Groups() {
		if g.Used > 0 {
			t.Errorf("%d slots of %s are taken", g.Used, g.Name)
		}
	}
}

// empty waits until the queue is.
func (w *world) empty() {
	w.t.Helper()
	var left *queue.Envelope
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		left = nil
		w.work.List(func(e *queue.Envelope) bool { left = e; return false })
		if left == nil {
			return
		}
	}
	w.t.Fatalf("the queue still holds %+v", left)
}
