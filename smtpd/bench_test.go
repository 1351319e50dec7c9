package smtpd

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"relayd/message"
	"relayd/relay"
	"relayd/reply"
)

// An idleRelay takes everything and does nothing with it.
type idleRelay struct{ fakeRelay }

func (*idleRelay) Accept(_ context.Context, tx *relay.Transaction, _ *message.Message) (*reply.Reply, error) {
	return reply.New(250, "2.0.0", "Ok: queued as %s", tx.ID), nil
}

// BenchmarkData is a whole session with one message, without a network.
func BenchmarkData(b *testing.B) {
	for _, c := range []struct {
		name string
		size int
	}{{"4KiB", 4 << 10}, {"2MB", 2_000_000}} {
		b.Run(c.name, func(b *testing.B) {
			body := strings.Repeat(strings.Repeat("x", 74)+"\r\n", c.size/76)
			input := []byte("HELO client.test\r\n" + envelope + "Subject: x\r\n\r\n" + body + ".\r\nQUIT\r\n")
			opt := fuzzOptions(false)
			opt.Limits.MessageSize = 50 << 20
			opt.SpoolDir = b.TempDir()
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				conn := &scriptedConn{in: bytes.NewReader(input), closed: make(chan struct{})}
				New(opt, &idleRelay{}).Serve(&oneConn{conn: conn})
				<-conn.closed
				if !bytes.Contains(conn.out.Bytes(), []byte("250 2.0.0 Ok: queued as")) {
					b.Fatalf("not taken: %s", conn.out.Bytes())
				}
			}
		})
	}
}
