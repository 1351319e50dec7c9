package domains

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// copies are the last good versions that are kept under the state folder for the next start.
type copies struct {
	dir      string // "": none are kept
	readOnly bool
	log      *slog.Logger
	kept     map[string]texts // what is on disk, by domain
}

// openCopies reads what an earlier run has kept. What cannot be read is as if it had not been.
func openCopies(opt Options) *copies {
	c := &copies{dir: opt.GoodDir, readOnly: opt.ReadOnly, log: opt.Log, kept: map[string]texts{}}
	if c.dir == "" {
		return c
	}
	domains, _ := os.ReadDir(c.dir)
	for _, d := range domains {
		t := texts{}
		for _, sub := range []string{"", dirKeys} {
			files, _ := os.ReadDir(filepath.Join(c.dir, d.Name(), sub))
			for _, f := range files {
				name := filepath.Join(sub, f.Name())
				if text, err := readFile(filepath.Join(c.dir, d.Name(), name)); err == nil {
					t[name] = text
				}
			}
		}
		c.kept[d.Name()] = t
	}
	return c
}

// savers is how many domains are saved at once: each write waits for the disk, and one wait
// serves all that are due.
const savers = 32

// save makes what is kept the same as what is in force. It holds keys and hashes, so nobody else
// may read it. Not keeping a copy is no reason to stop: it is logged, and tried again next time.
func (c *copies) save(good map[string]texts) {
	if c.dir == "" || c.readOnly {
		return
	}
	var wg sync.WaitGroup
	free := make(chan struct{}, savers)
	for domain, t := range good {
		kept := c.kept[domain]
		if kept == nil {
			kept = texts{}
			c.kept[domain] = kept
		}
		free <- struct{}{}
		wg.Go(func() {
			defer func() { <-free }()
			c.saveDomain(domain, t, kept)
		})
	}
	wg.Wait()
	for domain := range c.kept {
		if _, hosted := good[domain]; !hosted && c.removed(os.RemoveAll(filepath.Join(c.dir, domain))) {
			delete(c.kept, domain)
		}
	}
}

// saveDomain brings the copies of one domain up to date, and kept with them.
func (c *copies) saveDomain(domain string, t, kept texts) {
	dir := filepath.Join(c.dir, domain)
	for name, text := range t {
		if old, ok := kept[name]; ok && bytes.Equal(old, text) {
			continue
		}
		file := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(file), 0o700)
		if err == nil {
			err = WriteFile(file, text, 0o600)
		}
		if err != nil {
			c.log.Error("a last good copy could not be kept", "file", file, "error", err.Error())
			continue
		}
		kept[name] = text
	}
	for name := range kept {
		if _, ok := t[name]; !ok && c.removed(os.Remove(filepath.Join(dir, name))) {
			delete(kept, name)
		}
	}
}

func (c *copies) removed(err error) bool {
	if err != nil && !os.IsNotExist(err) {
		c.log.Error("an old copy could not be removed", "error", err.Error())
		return false
	}
	return true
}
