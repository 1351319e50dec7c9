package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"relayd/control"
	"relayd/queue"
)

func (t *tool) queueExport() *cobra.Command {
	c := &cobra.Command{
		Use:   "queue-export ID [FILE]|--all DIR",
		Short: "Write a message to a file or to standard output, byte for byte as it is stored.",
		Long: "Write a message to a new file or to standard output, byte for byte as it is stored.\n" +
			"--all writes every message, or those of the filters, into a new or empty folder: ID.eml, and ID.json with\n" +
			"what queue-show --json prints. Of a damaged message nothing but the latter is written. The queue stays as it is.",
		Example: "relay-util queue-export 1B2C3D4E5F6G7H8J message.eml",
	}
	filter := t.filterFlags(c)
	all := c.Flags().String("all", "", "write all messages into the folder `DIR`")
	what := func(c *cobra.Command, args []string) error {
		switch {
		case c.Flags().Changed("all") && (*all == "" || len(args) > 0):
			return errors.New("--all takes a folder, and nothing else is named beside it")
		case *all == "" && (len(args) == 0 || len(args) > 2):
			return errors.New("say which message: queue-export ID [FILE], or --all DIR")
		}
		for _, name := range filterNames() {
			if *all == "" && c.Flag(name).Changed {
				return fmt.Errorf("--%s goes with --all DIR", name)
			}
		}
		return nil
	}
	return t.ask(c, what, func(ctx context.Context, client *control.Client, args []string) error {
		e := &export{t: t, client: client}
		switch {
		case *all != "":
			return e.all(ctx, *all, filter.Filter)
		case len(args) == 1:
			return e.toOutput(ctx, args[0])
		}
		return interruptible(ctx, func(ctx context.Context) error { return e.toFile(ctx, args[0], args[1]) })
	})
}

// An export writes messages.
type export struct {
	t            *tool
	client       *control.Client
	done, failed int
}

func (e *export) toOutput(ctx context.Context, id string) error {
	if isTerminal(e.t.stdout) {
		return errors.New("a message can hold bytes that confuse a terminal; name a FILE, or send it through a pipe to `less`")
	}
	return e.client.Export(ctx, id, e.t.out)
}

func (e *export) toFile(ctx context.Context, id, file string) error {
	return newPrivateFile(file, func(w io.Writer) error { return e.client.Export(ctx, id, w) })
}

// newPrivateFile makes a file that was not there, readable by its owner alone, and fills it. After
// an error it is gone again.
func newPrivateFile(name string, fill func(io.Writer) error) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already: name another file", name)
	}
	if err != nil {
		return err
	}
	if err := errors.Join(fill(f), f.Close()); err != nil {
		os.Remove(name)
		return err
	}
	return nil
}

// all exports the messages of a filter, and goes on past those that are damaged.
func (e *export) all(ctx context.Context, dir string, f control.Filter) error {
	if err := emptyFolder(dir); err != nil {
		return err
	}
	progress := e.t.progress(false)
	err := interruptible(ctx, func(ctx context.Context) (err error) {
		listing := e.client.List(ctx, f, 0, func(m control.Message) bool {
			if err = e.message(ctx, dir, m.ID, progress); err == nil && progress.due() {
				progress.show(count(e.done, "message") + " exported")
			}
			return err == nil
		})
		return errors.Join(err, listing)
	})
	progress.clear()
	return errors.Join(err, e.conclude(dir, err == nil))
}

// conclude says how much was exported. whole tells that nothing has cut it short.
func (e *export) conclude(dir string, whole bool) error {
	if e.t.json {
		if err := e.t.printJSON(map[string]int{"exported": e.done, "damaged": e.failed}); err != nil {
			return err
		}
	} else if e.failed > 0 {
		e.t.say("%s exported to %s, %d damaged", count(e.done, "message"), dir, e.failed)
	} else {
		e.t.say("%s exported to %s", count(e.done, "message"), dir)
	}
	if whole && e.failed > 0 {
		return errNo
	}
	return nil
}

// message exports one of many. One that is over meanwhile is left out, one that is damaged is told
// of; an error is of what keeps the others from being exported as well.
func (e *export) message(ctx context.Context, dir, id string, progress *progress) error {
	if err := control.CheckID(id); err != nil { // it becomes a file's name, and relayd has fewer rights than we may have
		return fmt.Errorf("relayd names a message as it cannot be: %w", err)
	}
	d, err := e.client.Show(ctx, id)
	if errors.Is(err, queue.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	base := filepath.Join(dir, id)
	err = e.toFile(ctx, id, base+".eml")
	switch {
	case errors.Is(err, queue.ErrNotFound):
		return nil
	case errors.Is(err, control.ErrDamaged):
		e.failed++
		progress.clear()
		fmt.Fprintf(e.t.err, "relay-util: %s: %v\n", id, err)
	case err != nil:
		return err
	default:
		e.done++
	}
	return newPrivateFile(base+".json", func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(d)
	})
}

// emptyFolder makes a folder, or finds it empty: then no file is in the way of another.
func emptyFolder(dir string) error {
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, os.ErrExist) {
		return err
	}
	there, err := os.ReadDir(dir)
	if err == nil && len(there) > 0 {
		err = fmt.Errorf("%s is not empty: name a new folder", dir)
	}
	return err
}
