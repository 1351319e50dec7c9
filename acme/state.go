package acme

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// The files of a certificate, as room certs reads them, and those of our own, which stand beside the
// certificates' folders. Folders whose names begin with a dot are no certificates, and in no backup.
const (
	chainFile   = "fullchain.pem"
	keyFile     = "privkey.pem"
	stateFile   = "state.json"
	accountFile = "account.json"
)

// A Status is how a name fares.
type Status struct {
	Name    string    `json:"name"`
	Expires time.Time `json:"expires,omitzero"` // of the certificate in place; zero if there is none
	Next    time.Time `json:"next"`             // when one is ordered next
	Error   string    `json:"error,omitempty"`  // of the last try, if it failed
	Since   time.Time `json:"since,omitzero"`   // of the first failure since the last success
	Urgent  bool      `json:"urgent"`           // somebody must do something
}

// String is a sentence without its end.
func (s Status) String() string {
	text := "there is no certificate by ACME for " + s.Name
	if !s.Expires.IsZero() {
		text = "the certificate for " + s.Name + " expires at " + s.Expires.UTC().Format(time.RFC3339)
	}
	if s.Error != "" {
		text += "; ordering a new one has failed since " + s.Since.UTC().Format(time.RFC3339) + ": " + s.Error
	}
	return text + "; the next try is at " + s.Next.UTC().Format(time.RFC3339)
}

func status(name string, r *record, now time.Time, directory string) Status {
	s := Status{Name: name, Next: r.orderAt(now, directory), Error: r.Error, Since: r.Since, Urgent: r.leaf == nil && r.Failures > 0}
	if r.leaf != nil {
		s.Expires, s.Urgent = r.leaf.NotAfter, r.runsOut(now) || r.Clock
	}
	return s
}

func readState(dir string) (map[string]*record, error) {
	data, err := os.ReadFile(filepath.Join(dir, stateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all map[string]*record
	if err == nil {
		err = json.Unmarshal(data, &all)
	}
	if err != nil {
		return nil, fmt.Errorf("reading it: %w", err)
	}
	return all, nil
}

func writeState(dir string, all map[string]*record, write func(string, []byte) error) error {
	data, err := json.MarshalIndent(all, "", "\t")
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return err
	}
	return write(filepath.Join(dir, stateFile), append(data, '\n'))
}

// folderOf is the name of the folder for a name: no shell shall take a star for more than it is.
func folderOf(name string) string {
	if rest, ok := strings.CutPrefix(name, "*."); ok {
		return "_." + rest
	}
	return name
}

// exampleOf is a host that a certificate for name must be good for.
func exampleOf(name string) string {
	if rest, ok := strings.CutPrefix(name, "*."); ok {
		return "x." + rest
	}
	return name
}

// leaf returns the certificate, if the key is its.
func (p *Pair) leaf() (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair(p.Chain, p.Key)
	if err != nil {
		return nil, err
	}
	return pair.Leaf, nil
}

// readLeaf returns the certificate in place. One that does not do is as none, and says why.
func readLeaf(dir, name string) (*x509.Certificate, error) {
	folder := filepath.Join(dir, folderOf(name))
	chain, err := os.ReadFile(filepath.Join(folder, chainFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	key, keyErr := os.ReadFile(filepath.Join(folder, keyFile))
	if err := errors.Join(err, keyErr); err != nil {
		return nil, err
	}
	return (&Pair{chain, key}).leaf()
}

// install puts a pair into place as dir/folder in one step: folder is a link to a hidden folder
// with both files. The pair before it is kept, for somebody may be reading it.
func install(dir, folder string, p *Pair) error {
	link := filepath.Join(dir, folder)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := sweep(dir, folder); err != nil {
		return err
	}
	hidden, err := os.MkdirTemp(dir, "."+folder+"~")
	if err != nil {
		return err
	}
	err = errors.Join(writeSynced(filepath.Join(hidden, chainFile), p.Chain), writeSynced(filepath.Join(hidden, keyFile), p.Key), syncDir(hidden))
	if err == nil {
		err = os.Symlink(filepath.Base(hidden), hidden+".new")
	}
	if err == nil {
		err = putAside(link, hidden)
	}
	if err == nil {
		err = os.Rename(hidden+".new", link)
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(hidden), os.RemoveAll(hidden+".new"))
	}
	return syncDir(dir)
}

// putAside makes room for a link where a backup was restored: its folder is then one of an earlier pair.
// A crash right behind it costs an order.
func putAside(link, hidden string) error {
	if !isRestored(link) {
		return nil
	}
	return os.Rename(link, hidden+".old")
}

// isRestored reports whether a folder stands in the place of a link, with a pair in it and nothing else,
// as a backup puts it back, which holds what links lead to.
func isRestored(link string) bool {
	info, err := os.Lstat(link)
	if err != nil || !info.IsDir() {
		return false
	}
	list, err := os.ReadDir(link)
	return err == nil && len(list) == 2 && list[0].Name() == chainFile && list[1].Name() == keyFile
}

// sweep removes what is left of earlier pairs, but for the one in place.
func sweep(dir, folder string) error {
	link := filepath.Join(dir, folder)
	current, err := os.Readlink(link)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !isRestored(link) {
		return fmt.Errorf("%w: only links of relayd's own belong there: take it away", err)
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, item := range list {
		if strings.HasPrefix(item.Name(), "."+folder+"~") && item.Name() != current {
			if err := os.RemoveAll(filepath.Join(dir, item.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// discard removes certificates that have expired and are for none of the names.
func discard(dir string, names []string, now time.Time) error {
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, item := range list {
		folder := item.Name()
		name := folder
		if rest, ok := strings.CutPrefix(folder, "_."); ok {
			name = "*." + rest
		}
		if item.Type() != fs.ModeSymlink || slices.Contains(names, name) {
			continue
		}
		if leaf, err := readLeaf(dir, name); err != nil || leaf == nil || now.Before(leaf.NotAfter) {
			continue // somebody else's perhaps, or still of use
		}
		if err := os.Remove(filepath.Join(dir, folder)); err != nil {
			return err
		}
		if err := sweep(dir, folder); err != nil {
			return err
		}
	}
	return nil
}

func writeSynced(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
