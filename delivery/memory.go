package delivery

import "sync"

// A memory keeps values by key for as long as there is room: of what was not used since another
// half of size was, it keeps nothing. It is safe for concurrent use.
type memory[K comparable, V any] struct {
	size int

	mu         sync.Mutex // guards the rest
	young, old map[K]V
}

func newMemory[K comparable, V any](size int) *memory[K, V] {
	return &memory[K, V]{size: size, young: map[K]V{}}
}

func (m *memory[K, V]) get(key K) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.find(key)
}

// change replaces the value for key by what f makes of it: nothing if keep is false. f also
// learns whether there was one.
func (m *memory[K, V]) change(key K, f func(old V, ok bool) (v V, keep bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v, keep := f(m.find(key))
	if !keep {
		delete(m.young, key)
		return
	}
	m.set(key, v)
}

func (m *memory[K, V]) find(key K) (V, bool) {
	v, ok := m.young[key]
	if ok {
		return v, true
	}
	if v, ok = m.old[key]; ok {
		delete(m.old, key)
		m.set(key, v)
	}
	return v, ok
}

func (m *memory[K, V]) set(key K, v V) {
	if _, ok := m.young[key]; !ok && len(m.young) >= m.size/2 {
		m.old, m.young = m.young, map[K]V{}
	}
	m.young[key] = v
}
