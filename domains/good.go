package domains

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
)

// loadGood reads the last good copies that an earlier run has kept. What cannot be read is as if
// it had not been kept.
func loadGood(opt Options) map[string]texts {
	all := map[string]texts{}
	if opt.GoodDir == "" {
		return all
	}
	domains, _ := os.ReadDir(opt.GoodDir)
	for _, d := range domains {
		t := texts{}
		dir := filepath.Join(opt.GoodDir, d.Name())
		for _, sub := range []string{"", dirKeys} {
			files, _ := os.ReadDir(filepath.Join(dir, sub))
			for _, f := range files {
				name := filepath.Join(sub, f.Name())
				if text, err := readFile(filepath.Join(dir, name)); err == nil && f.Type().IsRegular() {
					t[name] = text
				}
			}
		}
		all[d.Name()] = t
	}
	return all
}

// saveGood makes the kept copies the same as what is in force. They hold keys and hashes, so
// nobody else may read them. Not keeping one is no reason to stop: it is logged.
func (l *loader) saveGood() {
	if l.opt.GoodDir == "" {
		return
	}
	kept := loadGood(l.opt)
	for domain, t := range l.good {
		dir := filepath.Join(l.opt.GoodDir, domain)
		for name, text := range t {
			if old, ok := kept[domain][name]; ok && bytes.Equal(old, text) {
				continue
			}
			file := filepath.Join(dir, name)
			err := os.MkdirAll(filepath.Dir(file), 0o700)
			if err == nil {
				err = WriteFile(file, text, 0o600)
			}
			if err != nil {
				l.opt.Log.Error("a last good copy could not be kept", "file", file, "error", err.Error())
			}
		}
		for name := range kept[domain] {
			if _, ok := t[name]; !ok {
				os.Remove(filepath.Join(dir, name))
			}
		}
	}
	for domain := range kept {
		if _, hosted := l.good[domain]; !hosted && !strings.Contains(domain, "/") {
			os.RemoveAll(filepath.Join(l.opt.GoodDir, domain))
		}
	}
}
