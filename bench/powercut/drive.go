package main

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// sector is what a drive writes wholly or not at all, in octets.
const sector = 512

// A drive is a disk with a cache that the power keeps alive: what was written can be read at once
// and is safe once it was flushed. It never fails.
type drive struct {
	slow time.Duration // how long a flush takes
	late time.Duration // with it, flushes are lies: writes are safe in their order and so much later

	mu      sync.Mutex
	view    []byte // what is read back
	safe    []byte // what survives whatever happens
	pending []write
	flushes int
}

// A write is one that may be lost yet.
type write struct {
	at   int64
	data []byte
	when time.Time
}

func newDrive(content []byte, slow time.Duration) *drive {
	return &drive{slow: slow, view: slices.Clone(content), safe: content}
}

func (d *drive) size() int64 { return int64(len(d.view)) }

func (d *drive) read(b []byte, at int64) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return copy(b, d.view[min(at, d.size()):])
}

// write reports whether there is room for b. It is for one goroutine at a time, as is flush: so
// every write that was answered comes before a flush.
func (d *drive) write(b []byte, at int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at+int64(len(b)) > d.size() {
		return false
	}
	copy(d.view[at:], b)
	d.pending = append(d.pending, write{at, slices.Clone(b), time.Now()})
	return true
}

func (d *drive) flush() {
	time.Sleep(d.slow)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flushes++
	d.settle()
}

// settle makes writes safe: all of them, or those that a drive that lies has come to by now.
func (d *drive) settle() {
	n := len(d.pending)
	if d.late > 0 {
		if i := slices.IndexFunc(d.pending, func(w write) bool { return time.Since(w.when) < d.late }); i >= 0 {
			n = i
		}
	}
	for _, w := range d.pending[:n] {
		copy(d.safe[w.at:], w.data)
	}
	d.pending = slices.Delete(d.pending, 0, n)
}

// cut is what is on the disk if the power goes now, and when that was. What was flushed is there.
// Of the rest the drive has written nothing, or all, or some of it in order, or any sectors of it.
func (d *drive) cut() (content []byte, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	at = time.Now()
	if d.late > 0 {
		d.settle()
		return slices.Clone(d.safe), at
	}
	content = slices.Clone(d.safe)
	chance, written := 1.0, d.pending
	switch rand.N(4) {
	case 0:
		written = nil
	case 1:
		written = written[:rand.N(len(written)+1)]
	case 2:
		chance = rand.Float64()
	}
	for _, w := range written {
		for off := 0; off < len(w.data); off += sector {
			if chance == 1 || rand.Float64() < chance {
				copy(content[w.at+int64(off):], w.data[off:min(off+sector, len(w.data))])
			}
		}
	}
	return content, at
}

// flushed is how many flushes there were.
func (d *drive) flushed() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.flushes
}
