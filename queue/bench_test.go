package queue

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// BenchmarkAdd measures durable acceptance of 4 KiB on the disk behind the temporary folder.
func BenchmarkAdd(b *testing.B) {
	body := bytes.Repeat([]byte("0123456789abcde\n"), 256)
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := open(b, osDisk{}, b.TempDir())
			b.SetBytes(int64(len(body)))
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						e := newEnvelope(b, NewID(time.Now()), "a@one.test")
						if err := s.Add(e, bytes.NewReader(body)); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkClaim measures one claim of one message with its Done, while 100,000 wait: half of
// them due, a tenth for a group that has no slot.
func BenchmarkClaim(b *testing.B) {
	s := &FileStore{messages: map[string]*entry{}}
	s.index.init(byDomain)
	now := time.Now()
	for n := range 100_000 {
		to := fmt.Sprintf("a@d%d.test", n%1000)
		if n%10 == 0 {
			to = "a@sick.test"
		}
		e := newEnvelope(b, fmt.Sprintf("WAIT%06d", n), to)
		e.Recipients[0].Next = now.Add(time.Duration(n-50_000) * time.Second)
		m := &entry{env: e}
		s.messages[e.ID] = m
		s.index.schedule(m)
	}
	free := func(g string) bool { return g != "sick.test" }
	b.ReportAllocs()
	for b.Loop() {
		work, _ := s.Claim(now, 1, free)
		if len(work) != 1 {
			b.Fatal("nothing is due")
		}
		s.Done(work[0])
	}
}
