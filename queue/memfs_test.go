package queue

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
)

// A memFS is a file system in memory that forgets what was not synced when its power is cut, and
// fails where it is told to.
type memFS struct {
	mu    sync.Mutex
	nodes map[string]*node // by name, as running programs see it
	// durable is what SyncDir has made of the names; pending are the changes since, in order.
	durable map[string]*node
	pending []nameChange

	ops    int   // operations that change something, so far
	failAt int   // the operation that fails
	fault  fault // how
	off    bool  // power is cut: nothing works any more
	free   uint64
	// before is called ahead of every operation; its error is the operation's.
	before func(op, name string) error
}

type fault int

const (
	powerCut fault = iota
	ioError
	noSpace
	shortWrite
	wasOff
)

// A node is a file. What is synced is in durable; writes since are in pending, in order.
type node struct {
	data    []byte
	durable []byte
	pending []memWrite
}

type memWrite struct {
	off  int64
	data []byte
}

type nameChange struct {
	name string
	node *node // nil: removed
}

var errPowerCut = errors.New("power is cut")

func newMemFS() *memFS {
	return &memFS{nodes: map[string]*node{}, durable: map[string]*node{}, failAt: -1, free: 1 << 40}
}

// step counts an operation and says how it ends. The caller holds mu.
func (m *memFS) step(op, name string) (fault, error) {
	if m.before != nil {
		if err := m.before(op, name); err != nil {
			return ioError, err
		}
	}
	if m.off {
		return wasOff, errPowerCut
	}
	m.ops++
	if m.ops != m.failAt {
		return 0, nil
	}
	switch m.fault {
	case powerCut:
		m.off = true
		return powerCut, errPowerCut
	case noSpace:
		return noSpace, syscall.ENOSPC
	case shortWrite:
		return shortWrite, io.ErrShortWrite
	}
	return ioError, syscall.EIO
}

func (m *memFS) set(name string, n *node) {
	if n == nil {
		delete(m.nodes, name)
	} else {
		m.nodes[name] = n
	}
	m.pending = append(m.pending, nameChange{name, n})
}

func (m *memFS) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step("create", name); err != nil {
		return nil, err
	}
	if m.nodes[name] != nil {
		return nil, fs.ErrExist
	}
	n := &node{}
	m.set(name, n)
	return &memFile{m, n, name}, nil
}

func (m *memFS) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.off {
		return nil, errPowerCut
	}
	n := m.nodes[name]
	if n == nil {
		return nil, fs.ErrNotExist
	}
	return &memFile{m, n, name}, nil
}

func (m *memFS) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step("rename", from); err != nil {
		return err
	}
	n := m.nodes[from]
	if n == nil {
		return fs.ErrNotExist
	}
	m.set(from, nil)
	m.set(to, n)
	return nil
}

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step("remove", name); err != nil {
		return err
	}
	if m.nodes[name] == nil {
		return fs.ErrNotExist
	}
	m.set(name, nil)
	return nil
}

func (m *memFS) MkdirAll(string) error { return nil }

func (m *memFS) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name := range m.nodes {
		if filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (m *memFS) SyncDir(dir string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step("syncdir", dir); err != nil {
		return err
	}
	m.pending = slices.DeleteFunc(m.pending, func(c nameChange) bool {
		if filepath.Dir(c.name) != dir {
			return false
		}
		m.keep(c)
		return true
	})
	return nil
}

func (m *memFS) keep(c nameChange) {
	if c.node == nil {
		delete(m.durable, c.name)
	} else {
		m.durable[c.name] = c.node
	}
}

func (m *memFS) Free(string) (bytes, files uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.free, 1 << 40, nil
}

type memFile struct {
	fs   *memFS
	n    *node
	name string
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.fs.off {
		return 0, errPowerCut
	}
	if f.fs.before != nil {
		if err := f.fs.before("read", f.name); err != nil {
			return 0, err
		}
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	kind, err := f.fs.step("write", f.name)
	if err != nil && (kind == shortWrite || kind == powerCut) {
		half := p[:len(p)/2]
		f.n.write(half, off)
		return len(half), err
	}
	if err != nil {
		return 0, err
	}
	f.n.write(p, off)
	return len(p), nil
}

func (n *node) write(p []byte, off int64) {
	n.data = apply(n.data, memWrite{off, p})
	n.pending = append(n.pending, memWrite{off, slices.Clone(p)})
}

func apply(data []byte, w memWrite) []byte {
	if end := w.off + int64(len(w.data)); end > int64(len(data)) {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	copy(data[w.off:], w.data)
	return data
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if _, err := f.fs.step("sync", f.name); err != nil {
		return err
	}
	for _, w := range f.n.pending {
		f.n.durable = apply(f.n.durable, w)
	}
	f.n.pending = nil
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	return int64(len(f.n.data)), nil
}

func (f *memFile) Close() error { return nil }

// A loss says how much of what was not synced a power cut takes.
type loss int

const (
	loseAll     loss = iota
	loseTail         // a prefix is kept, cut in the middle of a write
	loseSectors      // any sectors of any writes, any names
	loseNothing      // as after kill -9
)

// crash returns the file system as it is found after a power cut.
func (m *memFS) crash(l loss, rng *rand.Rand) *memFS {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := newMemFS()
	names := map[string]*node{}
	for name, n := range m.durable {
		names[name] = n
	}
	for i, c := range m.pending {
		keep := l == loseNothing || l == loseTail && i < rng.IntN(len(m.pending)+1) || l == loseSectors && rng.IntN(2) == 0
		if l == loseTail && !keep {
			break
		}
		if keep && c.node == nil {
			delete(names, c.name)
		} else if keep {
			names[c.name] = c.node
		}
	}
	done := map[*node]*node{}
	for name, n := range names {
		if done[n] == nil {
			data := n.survive(l, rng)
			done[n] = &node{data: data, durable: slices.Clone(data)}
		}
		after.nodes[name], after.durable[name] = done[n], done[n]
	}
	return after
}

// survive is what is left of a file.
func (n *node) survive(l loss, rng *rand.Rand) []byte {
	data := slices.Clone(n.durable)
	kept := len(n.pending)
	if l == loseTail {
		kept = rng.IntN(len(n.pending) + 1)
	}
	for i, w := range n.pending {
		switch {
		case l == loseAll:
		case l == loseNothing || l == loseTail && i < kept:
			data = apply(data, w)
		case l == loseTail && i == kept:
			data = apply(data, memWrite{w.off, w.data[:rng.IntN(len(w.data)+1)]})
		case l == loseSectors:
			const sector = 512
			for at := 0; at < len(w.data); {
				end := min(len(w.data), at+sector-int((w.off+int64(at))%sector))
				if rng.IntN(2) == 0 {
					data = apply(data, memWrite{w.off + int64(at), w.data[at:end]})
				}
				at = end
			}
		}
	}
	return data
}
