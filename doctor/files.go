package doctor

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// A Secret is a file, or a pattern of files as filepath.Glob knows it, that others must not read.
type Secret struct {
	Pattern string
	What    string // such as "private key"
}

// CheckFiles looks at who may read secrets, and whether the owner of the state folder can, as whom
// the daemon runs. What is not there is not looked at.
func CheckFiles(stateDir string, secrets []Secret) []Finding {
	uid, gid, known := owner(stateDir)
	var list []Finding
	seen := 0
	for _, secret := range secrets {
		files, err := filepath.Glob(secret.Pattern)
		if err != nil {
			continue // a name with brackets in it: the pattern matches nothing
		}
		for _, file := range files {
			info, err := os.Stat(file)
			if errors.Is(err, fs.ErrNotExist) || err == nil && info.IsDir() {
				continue
			}
			if seen++; err != nil {
				list = append(list, finding(Fail, "file "+file, "%v", err).do("look at its rights"))
				continue
			}
			list = append(list, judgeSecret(file, secret.What, info)...)
			if known && !readable(info, uid, gid) {
				list = append(list, finding(Fail, "file "+file, "relayd runs as user %d and cannot read this %s", uid, secret.What).
					do("chown %d %s", uid, file))
			}
		}
	}
	if len(list) == 0 {
		list = append(list, finding(OK, "rights of files", "%d secrets, all for their owner alone", seen))
	}
	return list
}

func judgeSecret(file, what string, info fs.FileInfo) []Finding {
	mode := info.Mode().Perm()
	if mode&0o006 == 0 {
		return nil
	}
	able := "read"
	if mode&0o002 != 0 {
		able = "change"
	}
	return []Finding{finding(Fail, "file "+file, "everybody on this machine can %s this %s (mode %04o)", able, what, mode).do("chmod o= %s", file)}
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
