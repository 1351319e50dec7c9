package bans

import (
	"container/list"
	"iter"
)

// A shelf holds so many things and no more: what was touched longest ago makes room for what is new.
type shelf[K comparable, V any] struct {
	most  int
	byKey map[K]*list.Element
	order *list.List // of *thing, oldest first
}

type thing[K comparable, V any] struct {
	key   K
	value V
}

func newShelf[K comparable, V any](most int) *shelf[K, V] {
	return &shelf[K, V]{most, map[K]*list.Element{}, list.New()}
}

// get returns what is there, or nil.
func (s *shelf[K, V]) get(k K) *V {
	e := s.byKey[k]
	if e == nil {
		return nil
	}
	return &e.Value.(*thing[K, V]).value
}

// touch returns what is there, zero if it is new, as the last to make room.
func (s *shelf[K, V]) touch(k K) *V {
	e := s.byKey[k]
	if e == nil {
		if s.order.Len() >= s.most {
			s.drop(s.order.Front().Value.(*thing[K, V]).key)
		}
		e = s.order.PushBack(&thing[K, V]{key: k})
		s.byKey[k] = e
	}
	s.order.MoveToBack(e)
	return &e.Value.(*thing[K, V]).value
}

func (s *shelf[K, V]) drop(k K) {
	if e := s.byKey[k]; e != nil {
		s.order.Remove(e)
		delete(s.byKey, k)
	}
}

// all goes from the oldest to the newest. One that it is at may be dropped.
func (s *shelf[K, V]) all() iter.Seq2[K, *V] {
	return func(yield func(K, *V) bool) {
		for e := s.order.Front(); e != nil; {
			t, next := e.Value.(*thing[K, V]), e.Next()
			if !yield(t.key, &t.value) {
				return
			}
			e = next
		}
	}
}
