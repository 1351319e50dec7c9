package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"relayd/backup"
	"relayd/config"
	"relayd/control"
	"relayd/sendmail"
)

func (t *tool) backup() *cobra.Command {
	c := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write settings, domains, keys, certificates and state into one archive, FILE.tar.gz.",
		Long: "Write everything that matters into one new archive, which only you can read: the folder of the settings with domains, users,\n" +
			"aliases, keys and certificates, and the state with the secrets of SRS and the account for certificates. Whoever has the archive\n" +
			"can sign mail as your domains: keep it as you keep a password. The queue is left out, unless --with-queue is given, for which relayd has to be stopped.",
		Example: "relay-util backup /root/relayd-2026-01-31.tar.gz",
	}
	withQueue := c.Flags().Bool("with-queue", false, "the queue, too")
	return t.verb(c, between(1, 1), func(ctx context.Context, args []string) error {
		cfg, err := t.settings()
		if err != nil {
			return err
		}
		if *withQueue {
			if err := stopped(ctx, cfg); err != nil {
				return err
			}
		}
		f, err := os.OpenFile(args[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("%s is there already; name a new file", args[0])
		}
		if err != nil {
			return err
		}
		leave := []string{sendmail.DropFolder}
		if !*withQueue {
			leave = append(leave, filepath.Base(cfg.QueueDir()))
		}
		summary, err := backup.Save(f, cfg, leave)
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(args[0])
			return err
		}
		return t.printBackup(cfg, args[0], summary)
	})
}

// stopped returns an error if relayd runs, or may run.
func stopped(ctx context.Context, cfg *config.Config) error {
	_, err := control.NewClient(cfg.ControlSocket()).Status(ctx)
	switch {
	case errors.Is(err, control.ErrNotRunning):
		return nil
	case err == nil:
		return errors.New("relayd is running; stop it first, with `systemctl stop relayd`")
	}
	return fmt.Errorf("is relayd running? Stop it first, with `systemctl stop relayd`: %w", err)
}

func (t *tool) printBackup(cfg *config.Config, file string, s backup.Summary) error {
	for _, left := range s.Left {
		t.warn("%s is not in the backup: it is no file, or a link that leads nowhere or out of what is its maker's", left)
	}
	n, err := sendmail.Waiting(cfg.StateDir)
	if err != nil {
		return err
	}
	if n > 0 {
		t.warn("%s of local users in %s are not in the backup: start relayd, which takes them in", count(n, "message"), filepath.Join(cfg.StateDir, sendmail.DropFolder))
	}
	for _, outside := range backup.Outside(cfg) {
		t.warn("%s is not in the backup: it lies outside of %s", outside, cfg.Dir())
	}
	if t.json {
		return t.printJSON(struct {
			File  string `json:"file"`
			Files int    `json:"files"`
			Bytes int64  `json:"bytes"`
		}{file, s.Files, s.Bytes})
	}
	t.say("%s holds %s, %s; passwords, private keys and secrets are among them", file, count(s.Files, "file"), size(s.Bytes))
	return nil
}
