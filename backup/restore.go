package backup

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayd/certs"
	"relayd/config"
	"relayd/domains"
	"relayd/internal/placing"
	"relayd/problem"
)

// Bounds of an archive that is restored: without a queue it is small.
const (
	maxMembers    = 1_000_000
	maxBytes      = 1 << 30
	maxQueueBytes = 64 << 30
)

// Options are where an archive is restored to, and how.
type Options struct {
	File      string                           // relayd.toml, by the name that it has in the archive
	StateDir  string                           // the only state_dir that the archive may name; "": that of the settings in place, or the usual one
	Force     bool                             // put aside what is in the way, which is an error otherwise
	WithQueue bool                             // the queue, too, if it is in the archive
	Now       time.Time                        // which names what is put aside
	Stopped   func(*config.Config) error       // why what is restored may not be changed now: relayd runs, say
	Warn      func(format string, args ...any) // is told what is not in order, and keeps nothing from being restored
}

// Restored is what was restored.
type Restored struct {
	Files  int
	Bytes  int64
	Config string   // folder of the settings
	State  string   // folder of the state
	Aside  []string // folders in which what was in the way is kept
}

// A restoring unpacks an archive into drafts beside the places of its files, checks them, and then
// renames them into these places: all or none.
type restoring struct {
	Restored
	opt    Options
	made   []string // folders that are to be removed if they are empty at the end
	drafts []string
	steps  []placing.Step

	inTheWay problem.List
}

// Restore puts what Save has written into its places, all of it or nothing. Files that would be wrong
// and, unless forced, names that are taken are errors that wrap a problem.List; what is no archive
// of ours is ErrNoBackup or ErrTooLarge.
func Restore(archive io.ReadSeeker, opt Options) (*Restored, error) {
	r := &restoring{opt: opt}
	defer r.tidy()
	if err := r.run(archive); err != nil {
		return nil, err
	}
	return &r.Restored, nil
}

func (r *restoring) run(archive io.ReadSeeker) error {
	r.Config = filepath.Dir(r.opt.File)
	expected, err := r.expectedState()
	if err != nil {
		return err
	}
	draft, err := r.draft(archive, configPart, r.Config)
	if err != nil {
		return err
	}
	cfg, err := r.check(draft)
	if err != nil {
		return err
	}
	if cfg.StateDir != expected {
		return fmt.Errorf("the settings in the archive have state_dir = %q, and here it is %s: add --state-dir %[1]s if the archive is one that you trust to write there", cfg.StateDir, expected)
	}
	if err := r.opt.Stopped(cfg); err != nil {
		return err
	}
	r.State = cfg.StateDir
	stateDraft, err := r.draft(archive, statePart, r.State)
	if err != nil {
		return err
	}
	if err := errors.Join(r.plan(draft, r.Config), r.plan(stateDraft, r.State)); err != nil {
		return err
	}
	if err := r.inTheWay.Err(); err != nil {
		return fmt.Errorf("this is in the way, and --force would put it aside:\n%w", err)
	}
	if err := placing.Run(r.steps); err != nil {
		return err
	}
	r.made = nil
	placing.MakeLast(r.opt.Warn, r.Config, r.State)
	return nil
}

// expectedState is the only folder that the archive may name for the state: what is in one must not
// decide alone where root writes.
func (r *restoring) expectedState() (string, error) {
	if r.opt.StateDir == "" {
		return config.StateDir(r.opt.File), nil
	}
	return filepath.Abs(r.opt.StateDir)
}

// draft unpacks a part of the archive into a new one within dir, which is made if need be.
func (r *restoring) draft(archive io.ReadSeeker, name, dir string) (string, error) {
	if err := r.makeAll(dir); err != nil {
		return "", err
	}
	draft, err := os.MkdirTemp(dir, ".restore.*")
	if err != nil {
		return "", err
	}
	r.drafts = append(r.drafts, draft)
	summary, err := r.unpack(archive, name, draft)
	r.Files += summary.Files
	r.Bytes += summary.Bytes
	if err == nil && slices.Contains(r.made, dir) {
		err = domains.LikeOther(dir, draft)
	}
	return draft, err
}

// unpack takes one part of the archive out into dir.
func (r *restoring) unpack(archive io.ReadSeeker, name, dir string) (Summary, error) {
	if _, err := archive.Seek(0, io.SeekStart); err != nil {
		return Summary{}, err
	}
	to := target{Dirs: map[string]string{name: dir}, MaxMembers: maxMembers, MaxBytes: maxQueueBytes}
	if !r.opt.WithQueue {
		to.MaxBytes = maxBytes
		to.Skip = func(name string) bool {
			return name == queuePart || strings.HasPrefix(name, queuePart+"/")
		}
	}
	return unpack(archive, to)
}

// makeAll makes a folder and those around it that are missing, with the owner and mode of the
// one around them.
func (r *restoring) makeAll(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := r.makeAll(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := domains.MakeFolder(dir); err != nil {
		return err
	}
	r.made = append(r.made, dir)
	return nil
}

// check reads the draft of the settings as `relayd -check` would. Certificates that have expired
// since are no reason to stay without all the rest.
func (r *restoring) check(draft string) (*config.Config, error) {
	file := filepath.Join(draft, filepath.Base(r.opt.File))
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("there is no %s in the archive; name the settings file as it was with -c FILE", filepath.Base(file))
	}
	cfg, err := config.Load(file)
	if err != nil {
		return nil, renamed(err, draft, r.Config)
	}
	if err := domains.Read(cfg, cfg.DomainsDir()).Problems().Err(); err != nil {
		return nil, renamed(err, draft, r.Config)
	}
	_, bad := certs.New(certs.Options{Dir: cfg.CertsDir(), Hostname: cfg.Hostname, Log: slog.New(slog.DiscardHandler)})
	for _, p := range bad {
		r.opt.Warn("%s", strings.ReplaceAll(p.String(), draft, r.Config))
	}
	return cfg, nil
}

// renamed names the files of a draft as they are to be.
func renamed(err error, draft, dir string) error {
	list, ok := errors.AsType[problem.List](err)
	if !ok {
		return err
	}
	for i := range list {
		list[i].File = strings.Replace(list[i].File, draft, dir, 1)
		list[i].Reason = strings.ReplaceAll(list[i].Reason, draft, dir)
	}
	return fmt.Errorf("what is in the archive is not in order:\n%w", list)
}

// plan is how the names of a draft come to stand in dir.
func (r *restoring) plan(draft, dir string) error {
	entries, err := os.ReadDir(draft)
	if err != nil {
		return err
	}
	aside := ""
	for _, e := range entries {
		from, to := filepath.Join(draft, e.Name()), filepath.Join(dir, e.Name())
		switch taken, err := isTaken(to); {
		case err != nil:
			return err
		case taken && !r.opt.Force:
			r.inTheWay = append(r.inTheWay, problem.At(to, 0, "is there already"))
		case taken && aside == "":
			if aside, err = os.MkdirTemp(dir, ".before-restore."+r.opt.Now.UTC().Format("20060102T150405Z")+".*"); err != nil {
				return err
			}
			r.made, r.Aside = append(r.made, aside), append(r.Aside, aside)
			fallthrough
		case taken:
			r.steps = append(r.steps, placing.Rename(to, filepath.Join(aside, e.Name())))
		}
		r.steps = append(r.steps, placing.Rename(from, to))
	}
	return nil
}

// isTaken reports whether a name is taken. A folder with nothing in it is not.
func isTaken(name string) (bool, error) {
	info, err := os.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || !info.IsDir() {
		return true, err
	}
	entries, err := os.ReadDir(name)
	return len(entries) > 0, err
}

// tidy removes the drafts, and after an error the folders that were made for nothing.
func (r *restoring) tidy() {
	for _, draft := range r.drafts {
		os.RemoveAll(draft)
	}
	for i := len(r.made) - 1; i >= 0; i-- {
		os.Remove(r.made[i]) // not one with something in it
	}
}
