package backup

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path"
	"strconv"
	"strings"
)

// Why an archive is refused.
var (
	ErrNoBackup = errors.New("this is no backup by relay-util, or not a whole one")
	ErrTooLarge = errors.New("the backup holds more than is expected of one")
)

// maxTail is what may follow the end of a tar file: blocks of zeros, in bytes.
const maxTail = 1 << 20

// A target is where the members of an archive go.
type target struct {
	Dirs       map[string]string      // an empty folder for each part, by its name; members of others are checked and left out
	Skip       func(name string) bool // whether a member is checked and left out; name begins with the part
	MaxMembers int                    // how many there may be
	MaxBytes   int64                  // how large the files that are unpacked may be together
}

// unpack unpacks an archive. Owners are those of the archive, by name if this machine knows the
// name and by number if not; where the process may not give files away they stay its own. What an
// error leaves behind in the folders is the caller's to remove.
func unpack(r io.Reader, to target) (Summary, error) {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return Summary{}, fmt.Errorf("%w: %w", ErrNoBackup, err)
	}
	x := &extractor{target: to, tar: tar.NewReader(zip), roots: map[string]*os.Root{}, seen: map[string]bool{}, ids: map[string]int{}}
	defer x.close()
	for name, dir := range to.Dirs {
		if x.roots[name], err = os.OpenRoot(dir); err != nil {
			return Summary{}, err
		}
	}
	if err := x.mark(); err != nil {
		return Summary{}, err
	}
	if err := x.all(); err != nil {
		return Summary{}, err
	}
	// The checksum stands at the end.
	if n, err := io.Copy(io.Discard, io.LimitReader(zip, maxTail+1)); err != nil || n > maxTail {
		return Summary{}, errors.Join(ErrNoBackup, err)
	}
	return x.Summary, nil
}

// An extractor unpacks one archive.
type extractor struct {
	target
	Summary
	tar     *tar.Reader
	roots   map[string]*os.Root
	seen    map[string]bool // names of all members, and whether each is a folder
	folders []*tar.Header   // whose modes are set at the end
	ids     map[string]int  // of users and groups, by kind and name
	members int
}

func (x *extractor) close() {
	for _, root := range x.roots {
		if root != nil {
			root.Close()
		}
	}
}

// mark reads the first member.
func (x *extractor) mark() error {
	h, err := x.tar.Next()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoBackup, err)
	}
	text, err := io.ReadAll(io.LimitReader(x.tar, 64))
	if err != nil || h.Name != markName || string(text) != markText {
		return errors.Join(ErrNoBackup, err)
	}
	return nil
}

func (x *extractor) all() error {
	for {
		h, err := x.tar.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrNoBackup, err)
		}
		if err := x.member(h); err != nil {
			return err
		}
	}
	// The deepest first: a folder that may not be written to would keep out what is below it.
	for i := len(x.folders) - 1; i >= 0; i-- {
		if err := x.adopt(x.folders[i]); err != nil {
			return err
		}
	}
	return nil
}

// member checks one member and unpacks it.
func (x *extractor) member(h *tar.Header) error {
	if err := x.check(h); err != nil {
		return err
	}
	part, rest, _ := strings.Cut(strings.TrimSuffix(h.Name, "/"), "/")
	root := x.roots[part]
	if root == nil || rest != "" && x.Skip != nil && x.Skip(path.Join(part, rest)) {
		return nil
	}
	if h.Typeflag == tar.TypeReg {
		return x.file(root, rest, h)
	}
	if rest != "" {
		if err := root.Mkdir(rest, 0o700); err != nil {
			return err
		}
	}
	x.folders = append(x.folders, h)
	return nil
}

// check returns an error for what may not be in an archive.
func (x *extractor) check(h *tar.Header) error {
	if x.members++; x.members > x.MaxMembers {
		return ErrTooLarge
	}
	name, isFolder := h.Name, h.Typeflag == tar.TypeDir
	if isFolder {
		name = strings.TrimSuffix(name, "/")
	}
	parts := strings.Split(name, "/")
	switch {
	case h.Typeflag != tar.TypeReg && !isFolder:
		return fmt.Errorf("%w: %q is a link or something else than a file", ErrNoBackup, h.Name)
	case path.Clean(name) != name || path.IsAbs(name) || strings.ContainsRune(name, 0) || len(parts) > maxDepth+2:
		return fmt.Errorf("%w: %q is no name for a file in it", ErrNoBackup, h.Name)
	case len(parts) == 1 && !isFolder:
		return fmt.Errorf("%w: %q is in no folder", ErrNoBackup, h.Name)
	}
	for _, part := range parts {
		if strings.HasPrefix(part, ".") {
			return fmt.Errorf("%w: %q is no name for a file in it", ErrNoBackup, h.Name)
		}
	}
	if _, twice := x.seen[name]; twice {
		return fmt.Errorf("%w: %q stands in it twice", ErrNoBackup, h.Name)
	}
	if len(parts) > 1 && !x.seen[path.Dir(name)] {
		return fmt.Errorf("%w: %q comes before its folder", ErrNoBackup, h.Name)
	}
	x.seen[name] = isFolder
	return nil
}

func (x *extractor) file(root *os.Root, name string, h *tar.Header) error {
	if h.Size > x.MaxBytes-x.Bytes {
		return ErrTooLarge
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, x.tar)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrNoBackup, err)
	} else if n != h.Size {
		err = ErrNoBackup
	} else {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	x.Files++
	x.Bytes += n
	return x.adopt(h)
}

// adopt gives what is unpacked its owner and its mode.
func (x *extractor) adopt(h *tar.Header) error {
	part, name, _ := strings.Cut(strings.TrimSuffix(h.Name, "/"), "/")
	root := x.roots[part]
	if name == "" {
		name = "."
	}
	if os.Geteuid() == 0 {
		if err := root.Lchown(name, x.id("user", h.Uname, h.Uid), x.id("group", h.Gname, h.Gid)); err != nil {
			return err
		}
	}
	if err := root.Chmod(name, fs.FileMode(h.Mode)&fs.ModePerm); err != nil {
		return err
	}
	if h.ModTime.Unix() <= 0 {
		return nil
	}
	return root.Chtimes(name, h.ModTime, h.ModTime)
}

// id is the number of a user or group on this machine.
func (x *extractor) id(kind, name string, number int) int {
	key := kind + ":" + name
	if id, known := x.ids[key]; known && name != "" {
		return id
	}
	id := number
	if kind == "user" && name != "" {
		if u, err := user.Lookup(name); err == nil {
			id, _ = strconv.Atoi(u.Uid)
		}
	} else if name != "" {
		if g, err := user.LookupGroup(name); err == nil {
			id, _ = strconv.Atoi(g.Gid)
		}
	}
	if name != "" {
		x.ids[key] = id
	}
	return id
}
