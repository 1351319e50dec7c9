package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relayd/certs"
	"relayd/config"
	"relayd/domains"
	"relayd/problem"
)

func (t *tool) restore() *cobra.Command {
	c := &cobra.Command{
		Use:   "restore FILE [--force] [--state-dir DIR]",
		Short: "Put back what backup has written, into an empty place.",
		Long: "Put back what backup has written: the settings into the folder of the settings file (-c), the state into the state_dir that they name.\n" +
			"That must be the state_dir of the settings which are there now or, without any, the usual one; another one is named with --state-dir.\n" +
			"relayd has to be stopped. Everything is checked before anything is put in its place. What is there already is in the way,\n" +
			"unless --force is given: then it is kept in a folder .before-restore beside it. A queue in the archive is left out unless\n" +
			"--with-queue is given, for mail that was delivered since would be delivered once more.",
		Example: "relay-util restore /root/relayd-2026-01-31.tar.gz",
	}
	r := &restoring{t: t}
	c.Flags().BoolVar(&r.force, "force", false, "put aside what is in the way")
	c.Flags().StringVar(&r.stateDir, "state-dir", "", "take it as right that the state_dir in the archive is `DIR`")
	c.Flags().BoolVar(&r.withQueue, "with-queue", false, "the queue, too, if it is in the archive")
	return t.verb(c, between(1, 1), func(ctx context.Context, args []string) error {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		defer r.tidy()
		if err := r.run(ctx, f); err != nil {
			return fmt.Errorf("nothing was restored: %w", err)
		}
		return r.print()
	})
}

// A restoring unpacks an archive into drafts beside the places of its files, checks them, and then
// renames them into these places: all or none.
type restoring struct {
	t                *tool
	force, withQueue bool
	stateDir         string // "": that of the settings in place

	dir    string // of the settings
	files  int
	bytes  int64
	made   []string // folders that are to be removed if they are empty at the end
	drafts []string
	aside  []string // where what was in the way is kept
	steps  []placement

	inTheWay problem.List
}

func (r *restoring) run(ctx context.Context, f *os.File) error {
	dir := filepath.Dir(r.t.configFile)
	expected, err := r.expectedState()
	if err != nil {
		return err
	}
	draft, err := r.draft(f, archivedConfig, dir)
	if err != nil {
		return err
	}
	cfg, err := r.check(draft, dir)
	if err != nil {
		return err
	}
	if cfg.StateDir != expected {
		return fmt.Errorf("the settings in the archive have state_dir = %q, and here it is %s: add --state-dir %[1]s if the archive is one that you trust to write there", cfg.StateDir, expected)
	}
	if err := stopped(ctx, cfg); err != nil {
		return err
	}
	r.dir, r.stateDir = dir, cfg.StateDir
	stateDraft, err := r.draft(f, archivedState, cfg.StateDir)
	if err != nil {
		return err
	}
	if err := errors.Join(r.plan(draft, dir), r.plan(stateDraft, cfg.StateDir)); err != nil {
		return err
	}
	if err := r.inTheWay.Err(); err != nil {
		return fmt.Errorf("this is in the way, and --force would put it aside:\n%w", err)
	}
	if err := putInPlace(r.steps); err != nil {
		return err
	}
	r.made = nil
	r.t.makeLast(dir, cfg.StateDir)
	return nil
}

// expectedState is the only folder that the archive may name for the state: what is in one must not
// decide alone where root writes.
func (r *restoring) expectedState() (string, error) {
	if r.stateDir == "" {
		return config.StateDir(r.t.configFile), nil
	}
	return filepath.Abs(r.stateDir)
}

// draft unpacks a folder of the archive into a new one within dir, which is made if need be.
func (r *restoring) draft(f *os.File, name, dir string) (string, error) {
	if err := r.makeAll(dir); err != nil {
		return "", err
	}
	draft, err := os.MkdirTemp(dir, ".restore.*")
	if err != nil {
		return "", err
	}
	r.drafts = append(r.drafts, draft)
	summary, err := unpack(f, name, draft, r.withQueue)
	r.files += summary.Files
	r.bytes += summary.Bytes
	if err == nil && slices.Contains(r.made, dir) {
		err = domains.LikeOther(dir, draft)
	}
	return draft, err
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
func (r *restoring) check(draft, dir string) (*config.Config, error) {
	file := filepath.Join(draft, filepath.Base(r.t.configFile))
	if _, err := os.Stat(file); err != nil {
		return nil, fmt.Errorf("there is no %s in the archive; name the settings file as it was with -c FILE", filepath.Base(file))
	}
	cfg, err := config.Load(file)
	if err != nil {
		return nil, renamed(err, draft, dir)
	}
	quiet := slog.New(slog.DiscardHandler)
	store := domains.Open(domains.Options{
		Dir: cfg.DomainsDir(), AllowPipe: cfg.Aliases.AllowPipe, Mailboxes: cfg.Mailbox.LMTP != "", Log: quiet,
	})
	if err := store.Problems().Err(); err != nil {
		return nil, renamed(err, draft, dir)
	}
	_, bad := certs.New(certs.Options{Dir: cfg.CertsDir(), Hostname: cfg.Hostname, Log: quiet})
	for _, p := range bad {
		r.t.warn("%s", strings.ReplaceAll(p.String(), draft, dir))
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
		case taken && !r.force:
			r.inTheWay = append(r.inTheWay, problem.At(to, 0, "is there already"))
		case taken && aside == "":
			if aside, err = os.MkdirTemp(dir, ".before-restore."+r.t.now().UTC().Format("20060102T150405Z")+".*"); err != nil {
				return err
			}
			r.made, r.aside = append(r.made, aside), append(r.aside, aside)
			fallthrough
		case taken:
			r.steps = append(r.steps, rename(to, filepath.Join(aside, e.Name())))
		}
		r.steps = append(r.steps, rename(from, to))
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

func (r *restoring) print() error {
	if r.t.json {
		return r.t.printJSON(struct {
			Files  int      `json:"files"`
			Bytes  int64    `json:"bytes"`
			Config string   `json:"config"`
			State  string   `json:"state"`
			Aside  []string `json:"aside"`
		}{r.files, r.bytes, r.dir, r.stateDir, append([]string{}, r.aside...)})
	}
	r.t.say("restored %s, %s: the settings into %s, the state into %s", count(r.files, "file"), size(r.bytes), r.dir, r.stateDir)
	for _, dir := range r.aside {
		r.t.say("what was there before is in %s", dir)
	}
	r.t.say("check it with `relayd -check`, then start relayd")
	return nil
}
