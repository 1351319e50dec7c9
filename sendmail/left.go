package sendmail

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"relayd/reply"
)

// What one user may leave in the drop folder. The relay can keep nobody from writing there, but what it
// finds over that and cannot take at once it removes: else one user could fill the disk while the relay
// has more than it may take. While the relay is down, only a quota of the file system's bounds it.
const (
	maxLeft      = 10_000 // files
	maxLeftBytes = 1 << 30
)

// left is what stays of a user's in the drop folder after one look.
type left struct {
	files int
	bytes int64
	told  bool // that some of it was removed
}

var errLeftTooMuch = reply.New(552, "5.2.2", "More mail of yours waits than the %d messages and %d MiB that may, and what is over that is removed unsent",
	maxLeft, maxLeftBytes>>20)

// stays counts what stays in the folder for now, and removes it where its owner has left too much. The
// first file of a user always stays, however large messages may be.
func (d *Door) stays(ctx context.Context, path string, info fs.FileInfo) {
	uid := info.Sys().(*syscall.Stat_t).Uid
	if int(uid) == os.Geteuid() {
		uid = 0 // see sender
	}
	l := d.left[uid]
	if l == nil {
		l = &left{}
		d.left[uid] = l
	}
	if l.files == 0 || l.files < d.mostFiles && l.bytes+info.Size() <= maxLeftBytes {
		l.files++
		l.bytes += info.Size()
		return
	}
	if err := os.Remove(path); err != nil && info.IsDir() {
		return // it is not empty, and would be told of at every look
	} else if err != nil {
		d.opt.Log.Error("a file of a user who has left too many stays in the drop folder", "uid", uid, "error", err.Error())
		return
	}
	delete(d.aside, filepath.Base(path))
	d.opt.Log.Warn("removed from the drop folder, whose owner has left too much there", "uid", uid, "file", filepath.Base(path))
	if !l.told {
		l.told = true
		d.notify(ctx, uid, errLeftTooMuch)
	}
}
