package sendmail

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"relayd/address"
	"relayd/message"
	"relayd/relay"
	"relayd/reply"
)

// The drop folder has mode 1733: everybody may put a file into it, nobody but the relay may list it, and
// a file's name is known to its maker alone. The owner of a file is its sender. It is written under a
// name that begins with a dot, which the relay leaves alone, and renamed when it is on the disk.

// unfinished is how old a file may get under its first name: its maker is long gone.
const unfinished = time.Hour

// drop leaves a message in the drop folder. After nil it is on the disk.
func drop(dir string, req *Request, msg io.Reader) error {
	line, err := req.line()
	if err != nil {
		return err
	}
	name := rand.Text()
	first := filepath.Join(dir, "."+name)
	f, err := os.OpenFile(first, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.Write(line)
	if err == nil {
		_, err = io.Copy(f, msg)
	}
	if err = errors.Join(err, hand(f, dir)); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(first, filepath.Join(dir, name))
	}
	if err != nil {
		os.Remove(first)
		return err
	}
	// Who may not list the folder cannot open and sync it: so the whole file system is.
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		os.Remove(filepath.Join(dir, name))
		return err
	}
	return nil
}

// Waiting counts what lies in the drop folder of a state folder and is to be taken in.
func Waiting(stateDir string) (int, error) {
	folder, err := os.Open(dropIn(stateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer folder.Close()
	n := 0
	for {
		names, err := folder.Readdirnames(256)
		for _, name := range names {
			if !strings.HasPrefix(name, ".") {
				n++
			}
		}
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// hand makes the relay able to read a file. One of root's is given to the relay, for a file of root's is
// no proof that root has put it there: see sender.
func hand(f *os.File, dir string) error {
	if os.Geteuid() == 0 {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		owner := info.Sys().(*syscall.Stat_t)
		if err := f.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	return f.Chmod(0o644)
}

// Times of the drop folder.
const (
	lookEvery = 2 * time.Second
	restFor   = time.Minute // of a user, after a message that cannot be taken now
)

// maxAside bounds the files that have made relayd fail and are left alone, by name. Those that cannot be
// removed are not bound: no others come into a folder where that is so.
const maxAside = 1000

// watchDrop takes in what lies in the drop folder, until ctx ends.
func (d *Door) watchDrop(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := d.takeAll(ctx); err != nil {
			d.opt.Log.Error("the drop folder for mail of local users cannot be read", "error", err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// takeAll goes once through the drop folder, with little memory however much lies in it.
func (d *Door) takeAll(ctx context.Context) error {
	folder, err := os.Open(dropIn(d.opt.StateDir))
	if err != nil {
		return err
	}
	defer folder.Close()
	clear(d.left)
	for {
		names, err := folder.Readdirnames(256)
		for _, name := range names {
			if ctx.Err() != nil {
				return nil
			}
			if err := d.takeFile(ctx, name); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// takeFile takes one file in, and removes it once that is done or can never be. One that cannot be taken
// now stays, and with it all of the same user's, for a while: what one may not send for now keeps nobody
// else's back. A crash in between makes a duplicate, never a loss. An error is a fault of this machine's,
// such as too many open files, and says nothing about the file.
func (d *Door) takeFile(ctx context.Context, name string) error {
	path := filepath.Join(dropIn(d.opt.StateDir), name)
	if strings.HasPrefix(name, ".") || d.aside[name] {
		info, err := os.Lstat(path)
		switch {
		case err != nil:
		case !d.aside[name] && d.opt.Now().Sub(info.ModTime()) > unfinished:
			os.Remove(path)
		default:
			d.stays(ctx, path, info)
		}
		return nil
	}
	f, uid, err := d.openDropped(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case mayPass(err):
		return err
	case err != nil:
		if removed := os.Remove(path); removed == nil { // else it would be told of at every look
			d.opt.Log.Warn("removed from the drop folder what is no message", "file", name, "reason", err.Error())
		}
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if d.opt.Now().Before(d.resting[uid]) {
		d.stays(ctx, path, info)
		return nil
	}
	delete(d.resting, uid)
	id, err := d.takeDropped(ctx, f, uid)
	r := reply.From(err)
	switch {
	case err == nil:
		d.opt.Log.Info("taken from the drop folder", "id", id, "uid", uid)
	case errors.Is(err, errPanicked) && len(d.aside) < maxAside:
		d.opt.Log.Error("mail in the drop folder has made relayd fail, and stays there until the next start", "uid", uid, "file", name)
		d.aside[name] = true
		d.stays(ctx, path, info)
		return nil
	case r.Temporary():
		d.opt.Log.Warn("mail in the drop folder has to wait", "uid", uid, "reply", r.Error())
		d.resting[uid] = d.opt.Now().Add(restFor)
		d.stays(ctx, path, info)
		return nil
	default:
		d.opt.Log.Warn("mail in the drop folder is refused", "uid", uid, "reply", r.Error())
		d.notify(ctx, uid, r)
	}
	if err := d.remove(path); err != nil { // at every look it would be taken once more
		d.opt.Log.Error("a message that was taken stays in the drop folder, and will be taken again at the next start", "id", id, "error", err.Error())
		d.aside[name] = true
	}
	return nil
}

// mayPass tells an error of this machine's, after which a file may be opened well, from what says that a
// file is no message: a link, a socket, or what its maker keeps from the relay.
func mayPass(err error) bool {
	_, system := errors.AsType[*fs.PathError](err)
	return system && !errors.Is(err, syscall.ELOOP) && !errors.Is(err, syscall.ENXIO) && !errors.Is(err, fs.ErrPermission)
}

// openDropped opens a file and finds out whose it is.
func (d *Door) openDropped(path string) (*os.File, uint32, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	uid, err := d.sender(f)
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, uid, nil
}

// sender is who has put a file into the folder. A file that somebody else might have brought there, as a
// link or because it could write to it, has none.
func (d *Door) sender(f *os.File) (uint32, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	is := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return 0, errors.New("it is no regular file")
	case is.Nlink != 1:
		return 0, errors.New("it has other names")
	case info.Mode().Perm()&0o022 != 0:
		return 0, errors.New("others may write to it")
	case info.Size() > d.opt.MessageSize+maxRequest:
		return 0, errors.New("it is too large")
	case int(is.Uid) == os.Geteuid(): // only root can have given it to us
		return 0, nil
	case is.Uid == 0: // it may have been moved here from a folder of somebody else's
		return 0, errors.New("root's own mail belongs to the relay's user")
	}
	return is.Uid, nil
}

// takeDropped submits the message in a file.
func (d *Door) takeDropped(ctx context.Context, f *os.File, uid uint32) (string, error) {
	in := bufio.NewReader(f)
	req, length, err := readRequest(in)
	if mayPass(err) {
		return "", err
	}
	if err != nil {
		return "", reply.New(554, "5.6.0", "%v", err)
	}
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if info.Size() != int64(length)+req.Size {
		return "", reply.New(554, "5.6.0", "The message is not whole")
	}
	return d.take(ctx, uid, &req, &io.LimitedReader{R: in, N: req.Size})
}

// notify tells a local user why a message that was dropped is not sent. The message itself stays where
// it came from: the reason says enough, and what it holds may be what it was refused for.
func (d *Door) notify(ctx context.Context, uid uint32, why *reply.Reply) {
	defer d.contain(uid, new(error))
	name, err := d.opt.UserName(uid)
	if err != nil {
		return
	}
	to, err := d.opt.Rule.own(name)
	if err != nil {
		return
	}
	daemon := address.Address{Local: "mailer-daemon", Domain: d.opt.Rule.Domain}
	text := fmt.Sprintf("From: Mail Delivery System <%s>\r\nTo: <%s>\r\nSubject: Mail not sent\r\nAuto-Submitted: auto-replied\r\n\r\n"+
		"A message that was left for the mail relay while it was down could not be sent:\r\n\r\n    %s\r\n", daemon, to, why)
	m, err := message.Read(strings.NewReader(text), d.opt.SpoolDir, message.MemoryLimit)
	if err == nil {
		defer m.Close()
		s := &relay.Submission{User: daemon, Recipients: []relay.Recipient{{Address: to}}}
		err = d.opt.Inbound.Submit(ctx, s, s.Begin(), m)
	}
	if err != nil {
		d.opt.Log.Error("nobody could be told that mail in the drop folder was refused", "uid", uid, "error", err.Error())
	}
}
