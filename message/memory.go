package message

import "sync/atomic"

// A Memory is what many messages together may hold in memory while they are at work: what does not fit
// goes to a file, however small it is. It counts bytes of messages; with what is reserved to grow it may
// be twice that. It is safe for concurrent use. A nil Memory has no bound.
type Memory struct {
	free atomic.Int64
	all  int64
}

// NewMemory makes one of so many bytes.
func NewMemory(bytes int64) *Memory {
	m := &Memory{all: bytes}
	m.free.Store(bytes)
	return m
}

// Used is how much of it is taken, in bytes.
func (m *Memory) Used() int64 { return m.all - m.free.Load() }

// take reports whether there was room for n bytes, which then are to be given back.
func (m *Memory) take(n int) bool {
	if m == nil {
		return true
	}
	if m.free.Add(-int64(n)) < 0 {
		m.free.Add(int64(n))
		return false
	}
	return true
}

func (m *Memory) give(n int) {
	if m != nil {
		m.free.Add(int64(n))
	}
}
