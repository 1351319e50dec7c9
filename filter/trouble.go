package filter

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// troubleEvery is how often the log tells the same.
const troubleEvery = time.Minute

// troubles are what is wrong with the filters, by name. Safe for concurrent use.
type troubles struct {
	log *slog.Logger

	mu   sync.Mutex // guards the rest
	list map[string]trouble
}

type trouble struct {
	what  string
	since time.Time
	told  time.Time // in the log
}

// note keeps what is wrong with a filter until clear.
func (t *troubles) note(about, what string, now time.Time) {
	t.mu.Lock()
	one, known := t.list[about]
	if !known {
		one.since = now
	}
	one.what = what
	age := now.Sub(one.told)
	tell := age < 0 || age >= troubleEvery
	if tell {
		one.told = now
	}
	t.list[about] = one
	t.mu.Unlock()
	if tell {
		t.log.Warn("a filter has said nothing of use", "filter", about, "trouble", what)
	}
}

// clear is for a filter that has answered as it should.
func (t *troubles) clear(about string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.list, about)
}

func (t *troubles) warnings() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
	for _, about := range slices.Sorted(maps.Keys(t.list)) {
		one := t.list[about]
		list = append(list, fmt.Sprintf("filter %s, since %s: %s", about, one.since.UTC().Format(time.RFC3339), one.what))
	}
	return list
}
