package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"relayd/backup"
	"relayd/config"
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
	opt := backup.Options{Warn: t.warn}
	c.Flags().BoolVar(&opt.Force, "force", false, "put aside what is in the way")
	c.Flags().StringVar(&opt.StateDir, "state-dir", "", "take it as right that the state_dir in the archive is `DIR`")
	c.Flags().BoolVar(&opt.WithQueue, "with-queue", false, "the queue, too, if it is in the archive")
	return t.verb(c, between(1, 1), func(ctx context.Context, args []string) error {
		f, err := os.Open(args[0])
		if err != nil {
			return err
		}
		defer f.Close()
		opt.File, opt.Now = t.configFile, t.now()
		opt.Stopped = func(cfg *config.Config) error { return stopped(ctx, cfg) }
		r, err := backup.Restore(f, opt)
		if err != nil {
			return fmt.Errorf("nothing was restored: %w", err)
		}
		return t.printRestored(r)
	})
}

func (t *tool) printRestored(r *backup.Restored) error {
	if t.json {
		return t.printJSON(struct {
			Files  int      `json:"files"`
			Bytes  int64    `json:"bytes"`
			Config string   `json:"config"`
			State  string   `json:"state"`
			Aside  []string `json:"aside"`
		}{r.Files, r.Bytes, r.Config, r.State, append([]string{}, r.Aside...)})
	}
	t.say("restored %s, %s: the settings into %s, the state into %s", count(r.Files, "file"), size(r.Bytes), r.Config, r.State)
	for _, dir := range r.Aside {
		t.say("what was there before is in %s", dir)
	}
	t.say("check it with `relayd -check`, then start relayd")
	return nil
}
