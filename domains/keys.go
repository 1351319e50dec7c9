package domains

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"relayd/dkim"
	"relayd/problem"
)

// useKeys loads every dkim/SELECTOR.pem. A key file that is gone is a key that was retired, but
// only while another key is in force: mail that was signed yesterday does not go out unsigned by
// accident. For the same reason a domain all of whose keys are broken is unavailable. A new key
// that is broken, in a domain that was in force without it, is left out.
func (f *files) useKeys() {
	names, err := f.keyNames()
	var lost problem.List
	if err != nil {
		f.failed(err)
		f.domain.Stale = true
		lost = append(lost, f.complain(filepath.Join(f.dir, dirKeys), "the folder of the keys cannot be read: %v", err))
	}
	lost = append(lost, f.useEach(names)...)
	if len(f.domain.Keys) == 0 {
		before := slices.DeleteFunc(keyNames(maps.Keys(f.good[f.name])), func(name string) bool { return slices.Contains(names, name) })
		lost = append(lost, f.useEach(before)...)
	}
	if len(f.domain.Keys) == 0 || !f.known(f.name) {
		f.domain.Broken = append(f.domain.Broken, lost...)
	}
}

// keyNames are the key files of the domain, below its folder and in order.
func (f *files) keyNames() ([]string, error) {
	if f.down {
		return nil, nil
	}
	entries, err := os.ReadDir(filepath.Join(f.dir, dirKeys))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return keyNames(func(yield func(string) bool) {
		for _, e := range entries {
			if !yield(filepath.Join(dirKeys, e.Name())) {
				return
			}
		}
	}), err
}

// keyNames picks the names of key files from those of all files.
func keyNames(all iter.Seq[string]) []string {
	var names []string
	for name := range all {
		base, inside := strings.CutPrefix(name, dirKeys+"/")
		if inside && strings.HasSuffix(base, keySuffix) && !strings.HasPrefix(base, ".") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// useEach loads keys, and returns what is wrong with those of which no version can be used.
func (f *files) useEach(names []string) (lost problem.List) {
	for _, name := range names {
		lost = append(lost, f.use(name, f.addKey)...)
	}
	return lost
}

// addKey is the parser of key files. Parsing takes half a millisecond, so a key whose text is the
// same as before is not parsed again.
func (f *files) addKey(file string, text []byte) error {
	if text == nil {
		return nil // it has been removed since its name was read
	}
	id := keyText{f.name, strings.TrimSuffix(filepath.Base(file), keySuffix), string(text)}
	key := f.oldKeys[id]
	if key == nil {
		var err error
		if key, err = dkim.ParseKey(f.name, id.selector, text); err != nil {
			return problem.At(file, 1, "%v", err)
		}
	}
	if slices.ContainsFunc(f.domain.Keys, func(k *dkim.Key) bool { return k.Selector == key.Selector }) {
		return fmt.Errorf("there is another key for the selector %s: upper and lower case are the same", key.Selector)
	}
	f.keys[id] = key
	f.domain.Keys = append(f.domain.Keys, key)
	return nil
}
