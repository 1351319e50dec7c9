package dns

import "time"

// shareOfCache is how many bytes of an answer count as one entry.
const shareOfCache = 1024

// A cache keeps results until they expire. It is two generations of half its size each: new and
// used entries go to the young one; when that is full it becomes the old one, and what nobody
// asked for since is dropped with the old one before it. So no entry is ever searched for or
// moved in a list, and the time of an eviction does not depend on the size. Not safe for
// concurrent use.
type cache struct {
	half       int // bound of each generation, in shares
	used       int // shares in young
	young, old map[question]entry
}

type entry struct {
	res     result
	expires time.Time
}

// newCache makes a cache for a number of answers of up to 1 KiB.
func newCache(size int) *cache {
	return &cache{half: max(1, size/2), young: map[question]entry{}}
}

func (c *cache) get(q question, now time.Time) (result, bool) {
	e, ok := c.young[q]
	if !ok {
		if e, ok = c.old[q]; !ok {
			return result{}, false
		}
	}
	if !now.Before(e.expires) {
		c.remove(q)
		return result{}, false
	}
	if _, young := c.young[q]; !young {
		c.insert(q, e)
	}
	return e.res, true
}

func (c *cache) put(q question, res result, now time.Time) {
	c.remove(q)
	c.insert(q, entry{res, now.Add(res.ttl)})
}

// insert adds e to the young generation, where q is not.
func (c *cache) insert(q question, e entry) {
	need := shares(q, e.res)
	if need > c.half {
		return // one answer never drives out all others
	}
	if c.used+need > c.half {
		c.old, c.young, c.used = c.young, map[question]entry{}, 0
	}
	delete(c.old, q)
	c.young[q] = e
	c.used += need
}

func (c *cache) remove(q question) {
	if e, ok := c.young[q]; ok {
		c.used -= shares(q, e.res)
		delete(c.young, q)
	}
	delete(c.old, q)
}

// shares is how many entries of the cache's bound a result takes up.
func shares(q question, res result) int {
	size := len(q.name)
	for _, rec := range res.records {
		size += len(rec.text) + 48 // the struct
	}
	return 1 + size/shareOfCache
}
