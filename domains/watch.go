package domains

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// pollEvery is how often the files are looked at. Two looks that agree are needed before a
// change is loaded, so it is in force within 3 seconds.
const pollEvery = time.Second

// maxRestless is how many looks in a row may find files changed before they are loaded as they are: nobody
// writes one file for so long, and a file that never rests must not keep changes of others out.
const maxRestless = 10

// Watch loads changes until ctx ends. It polls: a look at a few hundred files takes less than a
// millisecond, works on every file system, and needs no watch to be put back after a rename. A
// file that is still being written is left alone until it has not changed between two looks.
func (s *Store) Watch(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for seen := ""; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			seen = s.look(seen)
		}
	}
}

// look loads the files if they have changed and are now what they were at the last look, or have not
// rested for many. It returns what they are.
func (s *Store) look(seen string) (now string) {
	now = fingerprint(s.opt.Dir)
	s.mu.Lock()
	changed := now != s.applied
	if s.restless++; !changed || now == seen {
		s.restless = 0
	}
	due := changed && (now == seen || s.restless >= maxRestless)
	s.mu.Unlock()
	if due {
		s.Reload()
	}
	return now
}

// fingerprint changes whenever a file below dir that matters does. Of a folder only that counts
// which decides whether it can be read: its times change with every file that an editor puts
// beside the others for a moment.
func fingerprint(dir string) string {
	h := sha256.New()
	entries, err := os.ReadDir(dir)
	fmt.Fprintln(h, err)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		folder := filepath.Join(dir, e.Name())
		if !mark(h, folder) {
			continue
		}
		for _, name := range []string{fileSettings, fileUsers, fileAliases} {
			mark(h, filepath.Join(folder, name))
		}
		keys := filepath.Join(folder, dirKeys)
		if !mark(h, keys) {
			continue
		}
		files, err := os.ReadDir(keys)
		fmt.Fprintln(h, err)
		for _, f := range files {
			if strings.HasSuffix(f.Name(), keySuffix) {
				mark(h, filepath.Join(keys, f.Name()))
			}
		}
	}
	return string(h.Sum(nil))
}

// mark adds what a file looks like, links followed, and reports whether it is a folder.
func mark(h hash.Hash, name string) (folder bool) {
	var st syscall.Stat_t
	if err := syscall.Stat(name, &st); err != nil {
		fmt.Fprintf(h, "%q %v\n", name, err)
		return false
	}
	fmt.Fprintf(h, "%q %d %d %d %d %d", name, st.Mode, st.Uid, st.Gid, st.Ino, st.Dev)
	if folder = st.Mode&syscall.S_IFMT == syscall.S_IFDIR; !folder {
		fmt.Fprintf(h, " %d %d %d", st.Size, st.Mtim.Nano(), st.Ctim.Nano())
	}
	fmt.Fprintln(h)
	return folder
}
