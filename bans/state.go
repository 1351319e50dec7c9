package bans

import (
	"context"
	"encoding/json"
	"maps"
	"net/netip"

	"relayd/tasks"
)

// state is what is on disk: lists, the oldest first, so that the order of making room survives too.
type state struct {
	Sources  []saved[netip.Prefix, record] `json:"sources"`
	Accounts []saved[string, record]       `json:"accounts"`
	Known    []saved[string, places]       `json:"known"`
}

type saved[K comparable, V any] struct {
	Key   K `json:"key"`
	Value V `json:"value"`
}

// Open goes on with what was known before the last end. State that is damaged is forgotten, which the
// log tells.
func Open(opt Options) *Book {
	b := &Book{
		opt:     opt,
		sources: newShelf[netip.Prefix, record](maxEntries), accounts: newShelf[string, record](maxEntries), known: newShelf[string, places](maxEntries),
	}
	var s state
	data, err := opt.Load()
	if err == nil && data != nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		opt.Log.Warn("who was banned from logging in is forgotten", "error", err.Error())
		return b
	}
	put(b.sources, s.Sources)
	put(b.accounts, s.Accounts)
	put(b.known, s.Known)
	return b
}

func put[K comparable, V any](s *shelf[K, V], list []saved[K, V]) {
	for _, one := range list {
		*s.touch(one.Key) = one.Value
	}
}

func take[K comparable, V any](s *shelf[K, V], stale func(*V) bool) []saved[K, V] {
	list := make([]saved[K, V], 0, s.order.Len())
	for k, v := range s.all() {
		if !stale(v) {
			list = append(list, saved[K, V]{k, *v})
		}
	}
	return list
}

// Run saves what is new until ctx ends.
func (b *Book) Run(ctx context.Context) {
	tasks.Every(ctx, saveEvery, b.save)
}

// Close saves what is new. It is called after Run has ended.
func (b *Book) Close() { b.save() }

// save is not called by two at once.
func (b *Book) save() {
	data, err := b.fresh()
	if err == nil && data != nil {
		err = b.opt.Save(data)
	}
	if err != nil {
		b.mu.Lock()
		b.dirty = true
		b.mu.Unlock()
		b.opt.Log.Warn("who is banned from logging in was not saved", "error", err.Error())
	}
}

// fresh is what is to be saved, nil if that is on disk already. Logins wait for no more of it than the
// copying.
func (b *Book) fresh() ([]byte, error) {
	s := b.snapshot()
	if s == nil {
		return nil, nil
	}
	return json.Marshal(s)
}

func (b *Book) snapshot() *state {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.dirty {
		return nil
	}
	b.dirty = false
	now := b.opt.Now()
	stale := func(r *record) bool { return r.stale(now) }
	s := &state{
		take(b.sources, stale), take(b.accounts, stale),
		take(b.known, func(p *places) bool {
			for where := range *p {
				if p.has(where, now) {
					return false
				}
			}
			return true
		}),
	}
	for i := range s.Known { // others change them as soon as the lock is open
		s.Known[i].Value = maps.Clone(s.Known[i].Value)
	}
	return s
}
