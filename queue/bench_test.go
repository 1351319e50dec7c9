package queue

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
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
			s, err := OpenStore(StoreOptions{Dir: b.TempDir(), Group: byDomain, Log: quiet})
			if err != nil {
				b.Fatal(err)
			}
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
			b.ReportMetric(float64(s.journal.counts.appends)/float64(max(1, s.journal.counts.syncs)), "messages/sync")
		})
	}
}

// BenchmarkAddBesideRaw takes turns between one Add of 4 KiB and what the disk itself does with as
// much: a write into a file that was filled beforehand, and a sync of its data. A disk is not as fast
// in one second as in the next, so only what was measured in turns makes a ratio.
func BenchmarkAddBesideRaw(b *testing.B) {
	dir := b.TempDir()
	s, err := OpenStore(StoreOptions{Dir: dir, Group: byDomain, Log: quiet})
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "raw"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	body := bytes.Repeat([]byte("0123456789abcde\n"), 256)
	for range 8192 {
		if _, err := f.Write(make([]byte, len(body))); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		b.Fatal(err)
	}
	var ours, raw time.Duration
	n := 0
	for b.Loop() {
		e := newEnvelope(b, NewID(time.Now()), "a@one.test")
		began := time.Now()
		if err := s.Add(e, bytes.NewReader(body)); err != nil {
			b.Fatal(err)
		}
		ours += time.Since(began)
		began = time.Now()
		if _, err := f.WriteAt(body, int64(n%8192)*int64(len(body))); err != nil {
			b.Fatal(err)
		}
		if err := (osFile{f}).Sync(); err != nil {
			b.Fatal(err)
		}
		raw += time.Since(began)
		n++
	}
	b.ReportMetric(float64(ours.Nanoseconds())/float64(n), "add-ns/op")
	b.ReportMetric(float64(raw.Nanoseconds())/float64(n), "raw-ns/op")
	b.ReportMetric(float64(raw)/float64(ours), "x-raw-rate")
}

// BenchmarkFilePerMessage is what a queue of one file for each message pays for the same promise:
// write, sync, rename, sync of the folder.
func BenchmarkFilePerMessage(b *testing.B) {
	body := bytes.Repeat([]byte("0123456789abcde\n"), 256)
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			dir := b.TempDir()
			b.SetBytes(int64(len(body)))
			var next atomic.Int64
			var wg sync.WaitGroup
			for range writers {
				wg.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						if err := filePerMessage(dir, fmt.Sprint(n), body); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func filePerMessage(dir, name string, body []byte) error {
	tmp := filepath.Join(dir, name+".tmp")
	f, err := os.Create(tmp)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(body); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(tmp, filepath.Join(dir, name)); err != nil {
		return err
	}
	return osFS{}.SyncDir(dir)
}

// BenchmarkClaim measures one claim of one message with its Done, while 100,000 wait: half of
// them due, a tenth for a group that has no slot.
func BenchmarkClaim(b *testing.B) {
	s := &LogStore{messages: map[string]*entry{}, changes: newIDLocks()}
	s.index.init(byDomain)
	now := time.Now()
	for n := range 100_000 {
		to := fmt.Sprintf("a@d%d.test", n%1000)
		if n%10 == 0 {
			to = "a@sick.test"
		}
		e := newEnvelope(b, fmt.Sprintf("WAIT%06d", n), to)
		e.Recipients[0].Next = now.Add(time.Duration(n-50_000) * time.Second)
		m := &entry{id: e.ID, cache: e, behind: true}
		s.messages[e.ID] = m
		s.index.fill(m, e, time.Time{})
	}
	free := func(g string, _ int) bool { return g != "sick.test" }
	b.ReportAllocs()
	for b.Loop() {
		work, _ := s.Claim(now, 1, free)
		if len(work) != 1 {
			b.Fatal("nothing is due")
		}
		s.Done(work[0])
	}
}

// BenchmarkOpen measures what a message that waits costs at start.
func BenchmarkOpen(b *testing.B) {
	const messages = 50_000
	opt := StoreOptions{Dir: b.TempDir(), Group: byDomain, Log: quiet}
	s, err := OpenStore(opt)
	if err != nil {
		b.Fatal(err)
	}
	body := bytes.Repeat([]byte("0123456789abcde\n"), 256)
	var wg sync.WaitGroup
	for w := range 64 {
		wg.Go(func() {
			for n := w; n < messages; n += 64 {
				e := newEnvelope(b, NewID(time.Now()), fmt.Sprintf("a@d%d.test", n%1000))
				if err := s.Add(e, bytes.NewReader(body)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s, err := OpenStore(opt)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/messages, "ns/message")
}
