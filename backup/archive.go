package backup

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"relayd/internal/links"
)

// The first member says what the archive is, and in which format.
const (
	markName = "relayd-backup"
	markText = "1\n"
)

// maxDepth is how deep folders may lie in one another. It ends a circle of links.
const maxDepth = 16

// A part is a folder that goes into an archive.
type part struct {
	Name string // of the folder in the archive, without a slash
	Dir  string // one that does not exist is left out
	// Skip reports whether a file or folder below Dir, by its path from there, is left out. Names
	// that begin with a dot always are: they are nobody's files.
	Skip func(name string, info fs.FileInfo) bool
}

// A Summary is what an archive holds.
type Summary struct {
	Files int
	Bytes int64
	Left  []string // paths that are neither file nor folder, or links that lead nowhere or are not followed
}

// pack writes an archive of the parts. Links are followed, so that the archive holds what they
// lead to; by root not those of another user's that lead to somebody else's. A file that vanishes while it is looked at is left out; one that grows goes in as long
// as it was at first.
func pack(w io.Writer, parts []part) (Summary, error) {
	zip := gzip.NewWriter(w)
	a := &writer{tar: tar.NewWriter(zip)}
	mark := &tar.Header{Typeflag: tar.TypeReg, Name: markName, Mode: 0o600, Size: int64(len(markText)), Format: tar.FormatPAX}
	err := a.tar.WriteHeader(mark)
	if err == nil {
		_, err = io.WriteString(a.tar, markText)
	}
	for _, s := range parts {
		if err == nil {
			err = a.add(s, ".", 0)
		}
	}
	if err == nil {
		err = a.tar.Close()
	}
	if err == nil {
		err = zip.Close()
	}
	return a.Summary, err
}

type writer struct {
	Summary
	tar *tar.Writer
}

// add writes a file or a folder with what is in it; name is its path from the folder of the part.
func (a *writer) add(s part, name string, depth int) error {
	full := filepath.Join(s.Dir, name)
	info, err := os.Stat(full)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if _, err := os.Lstat(full); err == nil {
			a.Left = append(a.Left, full)
		}
		return nil
	case err != nil:
		return err
	case name != "." && s.Skip != nil && s.Skip(name, info):
		return nil
	case info.IsDir():
		return a.folder(s, name, depth)
	case !info.Mode().IsRegular():
		a.Left = append(a.Left, full)
		return nil
	}
	return a.file(full, path.Join(s.Name, filepath.ToSlash(name)))
}

func (a *writer) folder(s part, name string, depth int) error {
	full := filepath.Join(s.Dir, name)
	if depth > maxDepth {
		return fmt.Errorf("%s lies more than %d folders deep: is there a link that leads in a circle?", full, maxDepth)
	}
	info, err := os.Stat(full)
	if err != nil {
		return err
	}
	if err := a.header(info, path.Join(s.Name, filepath.ToSlash(name))+"/"); err != nil {
		return err
	}
	entries, err := os.ReadDir(full) // in the order of their names
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if e.Type() == fs.ModeSymlink && links.Check(filepath.Join(full, e.Name())) != nil {
			a.Left = append(a.Left, filepath.Join(full, e.Name()))
			continue
		}
		if err := a.add(s, filepath.Join(name, e.Name()), depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (a *writer) file(full, name string) error {
	f, err := os.Open(full)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := a.header(info, name); err != nil {
		return err
	}
	if _, err := io.CopyN(a.tar, f, info.Size()); err != nil {
		return fmt.Errorf("reading %s: %w", full, err)
	}
	a.Files++
	a.Bytes += info.Size()
	return nil
}

func (a *writer) header(info fs.FileInfo, name string) error {
	h, err := tar.FileInfoHeader(info, "")
	if err != nil {
		return err
	}
	return a.tar.WriteHeader(&tar.Header{
		Typeflag: h.Typeflag, Name: name, Size: h.Size, Mode: int64(info.Mode().Perm()), ModTime: h.ModTime,
		Uid: h.Uid, Gid: h.Gid, Uname: h.Uname, Gname: h.Gname, Format: tar.FormatPAX,
	})
}
