package srs

import (
	"bufio"
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxTokens bounds the memory and the file of a store: about 100 MB at worst. A stranger who
	// fills it with long senders pushes out the oldest ones only.
	maxTokens = 250_000
	// tokenSlack is how much longer than asked an entry is kept, so that a sender who writes
	// every day adds a line every week only.
	tokenSlack = 7 * day
)

// FileTokens is a TokenStore in a text file that is only appended to. Each line begins with a
// checksum, so that a line torn by a power cut is skipped and costs no other. It is safe for
// concurrent use by one process.
type FileTokens struct {
	path  string
	limit int // entries

	mu      sync.Mutex
	file    *os.File
	lines   int // in the file
	key     []byte
	entries map[string]storedSender
	torn    bool  // the last write may have left part of a line
	failed  error // set for good once the disk has not kept its word
}

type storedSender struct {
	sender  string
	expires time.Time
}

// OpenTokens opens the store at path, or makes it with mode 0600. Expired, replaced and damaged
// lines are removed from the file. The caller closes the store.
func OpenTokens(path string) (*FileTokens, error) {
	return openTokens(path, time.Now(), maxTokens)
}

func openTokens(path string, now time.Time, limit int) (*FileTokens, error) {
	t := &FileTokens{path: path, limit: limit, entries: make(map[string]storedSender)}
	clean, err := t.load()
	if err != nil {
		return nil, fmt.Errorf("reading SRS tokens: %w", err)
	}
	before := len(t.entries)
	maps.DeleteFunc(t.entries, func(_ string, s storedSender) bool { return s.expires.Before(now) })
	t.evict()
	if clean && len(t.entries) == before {
		t.file, err = os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0o600)
		if err == nil {
			err = t.file.Chmod(0o600)
		}
	} else {
		err = t.compact()
	}
	if err != nil {
		return nil, fmt.Errorf("opening SRS tokens: %w", errors.Join(err, t.Close()))
	}
	return t, nil
}

// Put is a method of TokenStore; it returns when the entry is on disk. After a failed sync it
// fails until the store is opened anew, because what the disk holds is then not known.
func (t *FileTokens) Put(sender string, expires time.Time) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	token := t.token(sender)
	if old, ok := t.entries[token]; ok && old.sender == sender && !old.expires.Before(expires) {
		return token, nil
	}
	s := storedSender{sender, expires.Add(tokenSlack)}
	if err := t.append(formatToken(token, s)); err != nil {
		return "", err
	}
	t.entries[token] = s
	t.evict()
	if t.lines > 2*t.limit {
		if err := t.compact(); err != nil {
			return "", err
		}
	}
	return token, nil
}

// Get is a method of TokenStore. It knows entries somewhat longer than asked for.
func (t *FileTokens) Get(token string) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, ok := t.entries[token]
	return s.sender, ok
}

// Close closes the file; Put fails from then on.
func (t *FileTokens) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.file == nil {
		return nil
	}
	t.failed = fs.ErrClosed
	err := t.file.Close()
	t.file = nil
	return err
}

// token derives the token of a sender: 128 bits that nobody without the key can guess.
func (t *FileTokens) token(sender string) string {
	m := hmac.New(sha256.New, t.key)
	m.Write([]byte(sender))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(m.Sum(nil)[:16]))
}

// append writes one line and syncs it. A write that fails, as on a full disk, may be tried again
// later: the line end in front then closes what was left of it.
func (t *FileTokens) append(line string) error {
	if t.failed != nil {
		return t.failed
	}
	if t.torn {
		line = "\n" + line
	}
	t.torn = true
	if _, err := io.WriteString(t.file, line); err != nil {
		return err
	}
	if err := t.file.Sync(); err != nil {
		t.failed = err
		return err
	}
	t.torn = false
	t.lines++
	return nil
}

// load reads the file and reports whether every line of it is whole and needed.
func (t *FileTokens) load() (clean bool, err error) {
	f, err := os.Open(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	clean = true
	for r := bufio.NewReader(f); ; t.lines++ {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			return clean && line == "" && t.key != nil, nil
		}
		if err != nil {
			return false, err
		}
		clean = t.take(line) && clean
	}
}

// take reads one line, with its end, and reports whether it is whole and adds something.
func (t *FileTokens) take(line string) bool {
	text, ok := checkedLine(line)
	if !ok {
		return false
	}
	if s, ok := strings.CutPrefix(text, "key "); ok {
		key, err := hex.DecodeString(s)
		if err != nil || t.key != nil {
			return false
		}
		t.key = key
		return true
	}
	token, s, ok := parseToken(text)
	_, known := t.entries[token]
	if ok {
		t.entries[token] = s
	}
	return ok && !known
}

// evict makes room when there are too many entries: a tenth of them goes, those that expire
// first, so that this is not done for each Put.
func (t *FileTokens) evict() {
	if len(t.entries) <= t.limit {
		return
	}
	for _, token := range t.oldestFirst()[:len(t.entries)-t.limit+t.limit/10] {
		delete(t.entries, token)
	}
}

func (t *FileTokens) oldestFirst() []string {
	return slices.SortedFunc(maps.Keys(t.entries), func(a, b string) int {
		return cmp.Or(t.entries[a].expires.Compare(t.entries[b].expires), strings.Compare(a, b))
	})
}

// compact replaces the file by one that holds the entries and nothing else. When it fails the
// old file stays in use.
func (t *FileTokens) compact() error {
	if t.key == nil {
		t.key = make([]byte, 32)
		rand.Read(t.key) // never fails
	}
	f, err := os.OpenFile(t.path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	w.WriteString(formatLine("key " + hex.EncodeToString(t.key))) // Flush returns any error
	for _, token := range t.oldestFirst() {
		w.WriteString(formatToken(token, t.entries[token]))
	}
	err = errors.Join(w.Flush(), f.Chmod(0o600), f.Sync())
	if err == nil {
		err = os.Rename(f.Name(), t.path)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if t.file != nil {
		t.file.Close() // everything in it is in the new file
	}
	t.file, t.lines, t.torn = f, len(t.entries)+1, false
	if err := syncDir(filepath.Dir(t.path)); err != nil {
		t.failed = err // a power cut may bring the old file back, without what comes now
		return err
	}
	return nil
}
