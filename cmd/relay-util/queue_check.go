package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relayd/control"
	"relayd/queue"
)

func (t *tool) queueCheck() *cobra.Command {
	c := &cobra.Command{
		Use:   "queue-check",
		Short: "Read everything in the queue and compare it with its sums: is it as it was written?",
		Long: "Read everything in the queue and compare it with its sums: is it as it was written?\n" +
			"Mail is taken and delivered meanwhile; Ctrl-C ends it. relayd must run, for nobody else may open its\n" +
			"queue; it looks for damage at each start, too. A damaged file is set aside after all that is whole in it\n" +
			"was written anew. Exits with 1 if there is damage.",
		Example: "relay-util queue-check",
	}
	return t.ask(c, between(0, 0), func(ctx context.Context, client *control.Client, _ []string) error {
		report, err := t.check(ctx, client)
		if err != nil {
			return err
		}
		if t.json {
			err = t.printJSON(report)
		} else {
			err = t.printReport(report)
		}
		if err == nil && len(report.Damage) > 0 {
			err = errNo
		}
		return err
	})
}

func (t *tool) check(ctx context.Context, client *control.Client) (report *queue.Report, err error) {
	progress := t.progress(false)
	defer progress.clear()
	err = interruptible(ctx, func(ctx context.Context) (err error) {
		report, err = client.Check(ctx, func(done, total int64) {
			if progress.due() && total > 0 {
				progress.show(fmt.Sprintf("checking: %d %% of %s", done*100/total, size(total)))
			}
		})
		return err
	})
	switch {
	case errors.Is(err, errInterrupted):
		err = errors.New("interrupted: the queue was not checked to its end")
	case errors.Is(err, control.ErrNotRunning):
		err = fmt.Errorf("only relayd may open its queue, so it must run for this; it looks for damage when it starts, too: %w", err)
	}
	return report, err
}

func (t *tool) printReport(r *queue.Report) error {
	t.say("read %s: %s, %d of them in files of their own, and %s of the log", size(r.Bytes), count(r.Messages, "message"), r.Large, count(r.Segments, "segment"))
	aside := slices.Clone(r.Aside)
	for _, d := range r.Damage {
		t.say("\n%s: %s", plain(d.File), oneLine(strings.TrimPrefix(d.What, d.File+": ")))
		switch i := slices.IndexFunc(aside, func(name string) bool { return isAside(name, d.File) }); {
		case d.ID != "":
			t.say("  hits the message %s: see `relay-util queue-show %[1]s`, ask its sender to send it again,\n"+
				"  then forget it with `relay-util queue-remove %[1]s`", d.ID)
		case i >= 0:
			t.say("  was set aside as %s after all that is whole in it was written anew;\n"+
				"  if it is not wanted for an inquiry it can be deleted", plain(aside[i]))
			aside = slices.Delete(aside, i, i+1)
		default:
			t.say("  is being written to: restart relayd, which writes all that is whole in it anew and sets it aside")
		}
	}
	if len(r.Damage) == 0 {
		t.say("all is as it was written")
	} else {
		t.say("\nDamage comes from the disk or the memory of the machine: look at both (dmesg, smartctl).")
	}
	if len(aside) > 0 {
		t.say("\nset aside earlier because of damage, all that is whole in it is served; it can be deleted:\n  %s", plain(strings.Join(aside, "\n  ")))
	}
	return nil
}

// isAside reports whether name is where a file was set aside to.
func isAside(name, file string) bool {
	return strings.HasPrefix(filepath.Base(name), filepath.Base(file))
}
