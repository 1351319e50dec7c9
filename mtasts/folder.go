package mtasts

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"relayd/address"
)

const (
	// suffix is of the files that belong to the cache. No other file is touched.
	suffix = ".policy"
	draft  = ".draft-*" + suffix
	// magic begins each file; the SHA-256 digest of all that follows its line stands behind it.
	magic = "relayd MTA-STS policy 1 "
	// maxFile is more than the largest policy needs.
	maxFile = 256 << 10
)

// A folder keeps a file per domain, for the next start. It is a cache: what cannot be written is
// logged, and what cannot be read is dropped.
type folder struct {
	dir string // "" for none
	log *slog.Logger
}

// file is what stands in a file, as JSON.
type file struct {
	Domain  string    `json:"domain"`
	ID      string    `json:"id"`
	Fetched time.Time `json:"fetched"`
	Used    time.Time `json:"used"`
	Policy  string    `json:"policy"`
}

// load returns what the files hold and removes those that are damaged.
func (d folder) load(now time.Time) ([]saved, error) {
	if d.dir == "" {
		return nil, nil
	}
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return nil, err
	}
	names, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	var all []saved
	for _, name := range names {
		if !name.Type().IsRegular() || !strings.HasSuffix(name.Name(), suffix) {
			continue
		}
		path := filepath.Join(d.dir, name.Name())
		s, err := loadOne(path, now)
		if err != nil {
			d.log.Warn("MTA-STS policy file is damaged and removed", "file", path, "error", err)
			d.drop(path)
			continue
		}
		all = append(all, s)
	}
	return all, nil
}

// loadOne reads a file, of which more than maxFile is damage.
func loadOne(path string, now time.Time) (saved, error) {
	f, err := os.Open(path)
	if err != nil {
		return saved{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return saved{}, err
	}
	s, err := decode(data, now)
	if err == nil && filepath.Base(path) != s.Domain+suffix {
		err = fmt.Errorf("it is about %s", s.Domain)
	}
	return s, err
}

// encode is the content of the file for s.
func encode(s saved) ([]byte, error) {
	body, err := json.Marshal(file{s.Domain, s.ID, s.Fetched.UTC(), s.Used.UTC(), s.Policy.String()})
	if err != nil {
		return nil, err
	}
	return sealed(body), nil
}

// sealed puts the line with the digest in front.
func sealed(body []byte) []byte {
	sum := sha256.Sum256(body)
	return append([]byte(magic+hex.EncodeToString(sum[:])+"\n"), body...)
}

// decode reads the content of a file. Times in the future, of a clock that has been put right since,
// become now: a policy is never in force for longer than its max_age.
func decode(data []byte, now time.Time) (saved, error) {
	head, body, _ := bytes.Cut(data, []byte("\n"))
	if sum := sha256.Sum256(body); string(head) != magic+hex.EncodeToString(sum[:]) {
		return saved{}, errors.New("wrong digest")
	}
	var f file
	if err := json.Unmarshal(body, &f); err != nil {
		return saved{}, err
	}
	if name, err := address.Domain(f.Domain); err != nil || name != f.Domain || name[0] == '[' {
		return saved{}, fmt.Errorf("%q is not a domain", f.Domain)
	}
	if f.ID == "" || len(f.ID) > maxID || !all(f.ID, isAlphanumeric) || f.Fetched.IsZero() {
		return saved{}, errors.New("wrong id or time")
	}
	policy, err := parse(f.Policy)
	if err != nil {
		return saved{}, err
	}
	return saved{f.Domain, f.ID, earlier(f.Fetched, now), earlier(f.Used, now), policy}, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// path is where the policy of a domain is kept. What is not a domain name is refused, whoever let
// it come this far: it must never lead out of the folder.
func (d folder) path(domain string) (string, error) {
	if name, err := address.Domain(domain); err != nil || name != domain || strings.ContainsAny(name, "/[") {
		return "", fmt.Errorf("%q is no file name", domain)
	}
	return filepath.Join(d.dir, domain+suffix), nil
}

// write replaces the file of a domain in one step, so that it is whole also after a power cut.
func (d folder) write(s saved) {
	if d.dir == "" {
		return
	}
	if err := d.replace(s); err != nil {
		d.log.Warn("MTA-STS policy not written", "domain", s.Domain, "error", err)
	}
}

func (d folder) replace(s saved) error {
	path, err := d.path(s.Domain)
	if err != nil {
		return err
	}
	data, err := encode(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(d.dir, draft)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// remove deletes the files of domains, which need not exist.
func (d folder) remove(domains ...string) {
	if d.dir == "" {
		return
	}
	for _, domain := range domains {
		if path, err := d.path(domain); err == nil {
			d.drop(path)
		}
	}
}

func (d folder) drop(path string) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.log.Warn("MTA-STS policy file not removed", "error", err)
	}
}
