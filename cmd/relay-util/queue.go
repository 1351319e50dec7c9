package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"relayd/config"
	"relayd/control"
)

func (t *tool) queueVerbs() []*cobra.Command {
	return []*cobra.Command{
		t.queueList(),
		t.queueShow(),
		t.queueChange("retry", "will be tried now", "Try messages now instead of at their time; what is held stays held."),
		t.queueChange("hold", "held", "Keep messages from being tried until they are released."),
		t.queueChange("release", "released", "Try messages now that are held."),
		t.queueChange("remove", "removed", "Forget messages, each with all its recipients; neither sender nor recipient is told."),
		t.queueExport(),
		t.queueCheck(),
	}
}

// daemon is the way to the running daemon. A mistake made in the settings since it started must
// not cut it off: nothing but state_dir is needed of them.
func (t *tool) daemon() (*control.Client, error) {
	cfg, err := t.settings()
	if errors.Is(err, errNoSettings) {
		return nil, err
	}
	if err != nil {
		cfg = &config.Config{StateDir: config.StateDir(t.configFile)}
		t.warn("%s has problems, shown below; going on with state_dir %s\n%v", t.configFile, cfg.StateDir, err)
	}
	return control.NewClient(cfg.ControlSocket()), nil
}

// ask finishes a verb that needs the daemon.
func (t *tool) ask(c *cobra.Command, args cobra.PositionalArgs, f func(context.Context, *control.Client, []string) error) *cobra.Command {
	return t.verb(c, args, func(ctx context.Context, args []string) error {
		client, err := t.daemon()
		if err != nil {
			return err
		}
		return f(ctx, client, args)
	})
}

var errInterrupted = errors.New("interrupted")

// interruptible does something long, whose context ends with Ctrl-C: what was begun is then
// brought to an end. It returns errInterrupted if it was cut short.
func interruptible(ctx context.Context, f func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := f(ctx); ctx.Err() == nil {
		return err
	}
	return errInterrupted
}

func sender(m control.Message) string {
	if m.Sender == "" {
		return "<>"
	}
	return oneLine(m.Sender)
}

// recipients names the first of those that still wait, and counts the rest.
func recipients(m control.Message) string {
	const shown = 3
	var names []string
	for _, r := range m.Recipients {
		if r.State == "waiting" || r.State == "held" {
			names = append(names, oneLine(r.Address))
		}
	}
	if len(names) > shown {
		names = append(names[:shown], fmt.Sprintf("and %d more", len(names)-shown))
	}
	return strings.Join(names, ", ")
}

func (t *tool) next(m control.Message) string {
	if m.Next.IsZero() {
		return "-"
	}
	return t.when(m.Next)
}
