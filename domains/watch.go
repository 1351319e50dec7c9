package domains

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// pollEvery is how often the files are looked at. Two looks that agree are needed before a
// change is loaded, so it is in force within 3 seconds.
const pollEvery = time.Second

// Watch loads changes until ctx ends. It polls: a look at a few hundred files takes less than a
// millisecond, works on every file system, and needs no watch to be put back after a rename. A
// file that is still being written is left alone until it has not changed between two looks.
func (s *Store) Watch(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	seen := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := fingerprint(s.opt.Dir)
		s.mu.Lock()
		applied := s.applied
		s.mu.Unlock()
		if now != applied && now == seen {
			s.Reload()
		}
		seen = now
	}
}

// fingerprint changes whenever a file below dir that matters does.
func fingerprint(dir string) string {
	var b strings.Builder
	walk := func(pattern string) {
		names, _ := filepath.Glob(filepath.Join(escape(dir), pattern))
		for _, name := range names {
			var st syscall.Stat_t
			if syscall.Stat(name, &st) == nil {
				mode := fs.FileMode(st.Mode)
				fmt.Fprintf(&b, "%s %d %d %d %d %d %d\n", name, mode, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano(), st.Dev)
			}
		}
	}
	for _, pattern := range []string{"*", "*/" + fileSettings, "*/" + fileUsers, "*/" + fileAliases, "*/" + dirKeys + "/*" + keySuffix} {
		walk(pattern)
	}
	return b.String()
}

// escape takes the special meaning from the characters of a folder's name in a glob pattern.
func escape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(dir)
}
