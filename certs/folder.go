package certs

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayd/problem"
)

const (
	chainFile = "fullchain.pem"
	keyFile   = "privkey.pem"

	// maxFile is the most that either file may hold, in bytes; a long chain has some 10,000.
	maxFile = 1 << 20

	// settled is how old a change must be before size, time and inode alone tell that there was no
	// other: file systems keep times as coarsely as two seconds, and two writes can fall together.
	settled = 5 * time.Second
)

// A folder is a place where pairs lie, each in a folder of its own.
type folder struct {
	dir   string
	pairs map[string]*pair
}

// A pair is what is known of one NAME.
type pair struct {
	name, chain, key string // the name and the paths of its files
	good             *entry // in force; nil until there was one

	// What the last look found.
	stamps   [2]stamp
	sums     [2][sha256.Size]byte
	certain  bool // the files cannot have changed since without new stamps
	problems problem.List
}

// A stamp tells a changed file from the same file.
type stamp struct {
	info fs.FileInfo
}

// same reports whether two looks saw the same version of the same file.
func (s stamp) same(o stamp) bool {
	return s.info != nil && o.info != nil && os.SameFile(s.info, o.info) &&
		s.info.Size() == o.info.Size() && s.info.ModTime().Equal(o.info.ModTime()) && s.info.Mode() == o.info.Mode()
}

// scan looks at every pair. It returns those that came into force, and everything that is wrong.
// The names of paths are those that the folder lists, never what a client asked for.
func (f *folder) scan(now time.Time) (changed []*entry, problems problem.List) {
	if f.dir == "" {
		return nil, nil
	}
	listing, err := os.ReadDir(f.dir)
	if errors.Is(err, fs.ErrNotExist) && len(f.pairs) == 0 {
		return nil, nil // there never was any certificate
	}
	if err != nil {
		// A folder that cannot be read says nothing about what is in it.
		return nil, problem.List{problem.At(f.dir, 0, "%v", reason(err))}
	}
	seen := make(map[string]bool)
	for _, item := range listing {
		path := filepath.Join(f.dir, item.Name())
		// Followed if it is a link: certs/NAME may be one to certbot's live/NAME.
		if info, err := os.Stat(path); strings.HasPrefix(item.Name(), ".") || err == nil && !info.IsDir() {
			continue
		}
		seen[item.Name()] = true
		p := f.pairs[item.Name()]
		if p == nil {
			p = &pair{name: item.Name(), chain: filepath.Join(path, chainFile), key: filepath.Join(path, keyFile)}
			f.pairs[item.Name()] = p
		}
		if p.look(now) {
			changed = append(changed, p.good)
		}
		problems = append(problems, p.problems...)
		problems = append(problems, p.timeProblem(now)...)
	}
	for name := range f.pairs {
		if !seen[name] {
			delete(f.pairs, name) // somebody has taken it away
		}
	}
	return changed, problems
}

// entries returns the pairs in force, by name.
func (f *folder) entries() []*entry {
	var list []*entry
	for _, p := range f.pairs {
		if p.good != nil {
			list = append(list, p.good)
		}
	}
	slices.SortFunc(list, func(a, b *entry) int { return strings.Compare(a.info.Name, b.info.Name) })
	return list
}

// look reads the files if they may have changed, and reports whether another pair is in force now.
func (p *pair) look(now time.Time) bool {
	var stamps [2]stamp
	var missing problem.List
	for i, path := range []string{p.chain, p.key} {
		info, err := os.Stat(path)
		if err != nil {
			missing = append(missing, problem.At(path, 0, "%v", reason(err)))
			continue
		}
		stamps[i] = stamp{info}
	}
	if len(missing) > 0 {
		p.problems, p.certain = missing, false
		return false
	}
	if p.certain && stamps[0].same(p.stamps[0]) && stamps[1].same(p.stamps[1]) {
		return false
	}
	return p.read(stamps, now)
}

// read loads the files and puts them in force if they are good.
func (p *pair) read(stamps [2]stamp, now time.Time) bool {
	p.certain, p.problems = false, nil
	var data [2][]byte
	for i, path := range []string{p.chain, p.key} {
		var err error
		if data[i], err = readFile(path, stamps[i].info); err != nil {
			p.problems = append(p.problems, problem.At(path, 0, "%v", reason(err)))
			return false
		}
	}
	sums := [2][sha256.Size]byte{sha256.Sum256(data[0]), sha256.Sum256(data[1])}
	old := func(s stamp) bool { return now.Sub(s.info.ModTime()) > settled }
	p.stamps, p.certain = stamps, old(stamps[0]) && old(stamps[1])
	if p.good != nil && sums == p.sums {
		return false
	}
	cert, bad := p.load(data)
	if bad != nil {
		p.problems = append(p.problems, *bad)
		return false
	}
	e := newEntry(p.name, p.chain, cert)
	if p.good != nil && !e.validAt(now) {
		p.problems = append(p.problems, problem.At(p.chain, 0, "%s; the certificate before it stays in force", e.when(now)))
		p.certain = false // it may become valid without a change
		return false
	}
	p.good, p.sums = e, sums
	return true
}

// load makes a certificate of the contents of both files, or says which of them is wrong.
func (p *pair) load(data [2][]byte) (*tls.Certificate, *problem.Problem) {
	bad := func(file, format string, args ...any) (*tls.Certificate, *problem.Problem) {
		at := problem.At(file, 0, format, args...)
		return nil, &at
	}
	block := firstBlock(data[0], "CERTIFICATE")
	if block == nil {
		return bad(p.chain, "no PEM certificate in it")
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return bad(p.chain, "%v", err)
	}
	key := firstBlock(data[1], "PRIVATE KEY")
	if key == nil {
		return bad(p.key, "no PEM private key in it")
	}
	if strings.Contains(key.Type, "ENCRYPTED") || key.Headers["DEK-Info"] != "" {
		return bad(p.key, "the key is encrypted: store it without a passphrase")
	}
	cert, err := tls.X509KeyPair(data[0], data[1])
	if err != nil {
		if strings.Contains(err.Error(), "does not match") {
			return bad(p.key, "this key is not that of the first certificate in %s", chainFile)
		}
		return bad(p.key, "%s", strings.TrimPrefix(err.Error(), "tls: "))
	}
	for _, der := range cert.Certificate[1:] {
		if _, err := x509.ParseCertificate(der); err != nil {
			return bad(p.chain, "a certificate behind the first: %v", err)
		}
	}
	return &cert, nil
}

// firstBlock returns the first PEM block whose type ends in kind.
func firstBlock(data []byte, kind string) *pem.Block {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil || strings.HasSuffix(block.Type, kind) {
			return block
		}
	}
}

// timeProblem is that the pair in force is not valid now. It is shown nevertheless where there is
// no better one: a client that pins the key (DANE, RFC 7672) accepts it still, and to others it is
// no worse than a self-signed one.
func (p *pair) timeProblem(now time.Time) problem.List {
	if p.good == nil || p.good.validAt(now) {
		return nil
	}
	return problem.List{problem.At(p.chain, 0, "%s", p.good.when(now))}
}

// when says why the certificate is not valid now.
func (e *entry) when(now time.Time) string {
	if now.Before(e.info.NotBefore) {
		return "the certificate is valid only from " + e.info.NotBefore.UTC().Format(time.RFC3339) + "; is the clock right?"
	}
	return "the certificate expired at " + e.info.NotAfter.UTC().Format(time.RFC3339)
}

// readFile reads a regular file; on a pipe it would wait for ever.
func readFile(path string, info fs.FileInfo) ([]byte, error) {
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("more than %d MiB", maxFile>>20)
	}
	return data, nil
}

// reason is an error without the path, which a problem names already.
func reason(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}
