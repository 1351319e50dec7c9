package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"relayd/rights"
)

// CheckFiles looks at who may read and change the places of a relay, and whether the owner of the state
// folder, as whom the daemon runs, can read the secrets. What is not there is not looked at.
func CheckFiles(stateDir string, places []rights.Place) []Finding {
	uid, gid, known := owner(stateDir)
	var list []Finding
	secrets := 0
	for _, p := range places {
		info, err := os.Stat(p.Path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			list = append(list, finding(Fail, "file "+p.Path, "%v", err).do("look at its rights"))
			continue
		}
		if f, open := p.Fault(info); open {
			list = append(list, finding(Fail, "file "+f.Path, "%s", f.Text).do("%s", f.Do))
		}
		if !p.Secret || info.IsDir() {
			continue
		}
		if secrets++; known && !readable(info, uid, gid) {
			list = append(list, finding(Fail, "file "+p.Path, "relayd runs as user %d and cannot read this %s", uid, p.What).do("chown %d %s", uid, p.Word()))
		}
	}
	if len(list) == 0 {
		list = append(list, finding(OK, "rights of files", "%d secrets, all for their owner alone", secrets))
	}
	return list
}

// owner is who a folder belongs to; not known for root, who can read everything.
func owner(dir string) (uid, gid uint32, known bool) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, 0, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || stat.Uid == 0 {
		return 0, 0, false
	}
	return stat.Uid, stat.Gid, true
}

func readable(info fs.FileInfo, uid, gid uint32) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true
	}
	mode := info.Mode().Perm()
	return stat.Uid == uid && mode&0o400 != 0 || stat.Uid != uid && stat.Gid == gid && mode&0o040 != 0 || mode&0o004 != 0
}

// Space below which the disk is worth a word, and below which mail is put off.
const (
	spaceWarn  = 1 << 30  // bytes
	spaceFail  = 64 << 20 // what the queue keeps free
	inodesWarn = 10_000
	inodesFail = 200
)

// CheckDisk looks at the room that the queue has. Before the first start its folder is that around it.
func CheckDisk(dir string) []Finding {
	for dir != "/" && !exists(dir) {
		dir = filepath.Dir(dir)
	}
	subject := "disk of " + dir
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return []Finding{finding(Fail, subject, "%v", err)}
	}
	free := fs.Bavail * uint64(fs.Bsize)
	return []Finding{judgeSpace(subject, free), judgeInodes(subject, fs.Ffree, fs.Files)}
}

func judgeSpace(subject string, free uint64) Finding {
	f := finding(OK, subject, "%d MB free", free>>20)
	switch {
	case free < spaceFail:
		f.Status = Fail
	case free < spaceWarn:
		f.Status = Warn
	}
	return f.do("make room: mail is put off with 452 when the disk is full")
}

// judgeInodes knows file systems without a fixed number of them, which say 0.
func judgeInodes(subject string, free, all uint64) Finding {
	f := finding(OK, subject, "%d files can be made", free)
	switch {
	case all == 0:
		f.Text = "as many files as fit"
	case free < inodesFail:
		f.Status = Fail
	case free < inodesWarn:
		f.Status = Warn
	}
	return f.do("remove files: each large message in the queue needs one (df -i)")
}

func exists(dir string) bool {
	_, err := os.Stat(dir)
	return err == nil
}
