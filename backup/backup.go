// Package backup saves everything that a relay needs, and that cannot be had again, in one archive,
// and restores it: settings, domains, keys, certificates and state.
//
// The archive is a tar file (POSIX.1-2001, pax), compressed by gzip (RFC 1952), with folders and
// regular files in the order of their names, and with the owner and mode of each. What comes out
// of one is believed only so far: names stay below the folder that they are for, there are no links
// and no devices, nothing stands twice, and the size is bounded. It is checked whole before
// anything of it is put in its place, and then all is or nothing.
package backup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"relayd/config"
)

// The folders of an archive.
const (
	configPart = "config"
	statePart  = "state"
	queuePart  = statePart + "/queue" // where config.Config.QueueDir is
)

// Save writes an archive of the folder of the settings and of the state durably into f. What leave
// names in the state folder stays out, and so do sockets and f itself.
func Save(f *os.File, cfg *config.Config, leave []string) (Summary, error) {
	self, err := f.Stat()
	if err != nil {
		return Summary{}, err
	}
	state, err := os.Stat(cfg.StateDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Summary{}, err
	}
	summary, err := pack(f, []part{
		{Name: configPart, Dir: cfg.Dir(), Skip: func(_ string, info fs.FileInfo) bool {
			return os.SameFile(info, self) || state != nil && os.SameFile(info, state)
		}},
		{Name: statePart, Dir: cfg.StateDir, Skip: func(name string, info fs.FileInfo) bool {
			return os.SameFile(info, self) || slices.Contains(leave, name) || info.Mode()&fs.ModeSocket != 0
		}},
	})
	if err != nil {
		return summary, err
	}
	return summary, f.Sync()
}

// Outside are the files with secrets that Save does not save, because they lie outside of the folder of
// the settings.
func Outside(cfg *config.Config) (list []string) {
	dir, err := filepath.Abs(cfg.Dir())
	for _, file := range cfg.SecretFiles() {
		if filepath.IsAbs(file) && (err != nil || !strings.HasPrefix(filepath.Clean(file), dir+"/")) {
			list = append(list, file)
		}
	}
	return list
}
