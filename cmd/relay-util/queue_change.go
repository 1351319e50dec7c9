package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"relayd/control"
)

// A change is what a verb does to the messages of a selection.
type change struct {
	verb, done string
	sel        control.Selection
}

// queueChange is a verb that does the same to all messages of a selection.
func (t *tool) queueChange(verb, done, short string) *cobra.Command {
	c := &cobra.Command{
		Use:   "queue-" + verb + " ID...|FILTER...|--all",
		Short: short,
		Long: short + "\nName the messages by their IDs, or by filters, all of which must hold. One that cannot be changed does\n" +
			"not keep the others from it. Ctrl-C ends it after the message that it is at.",
		Example: "relay-util queue-" + verb + " --domain gmail.com --older 3d",
	}
	filter := t.filterFlags(c)
	all := c.Flags().Bool("all", false, "every message of the queue")
	yes := new(bool)
	if verb == "remove" {
		yes = c.Flags().Bool("yes", false, "do not ask")
	}
	return t.ask(c, oneKind, func(ctx context.Context, client *control.Client, args []string) error {
		if verb == "remove" && len(args) == 0 && !*yes {
			if ok, err := t.confirmRemoval(ctx, client, filter); !ok {
				return err
			}
		}
		return t.change(ctx, client, change{verb, done, control.Selection{IDs: args, All: *all, Filter: filter.Filter}})
	})
}

// oneKind lets exactly one way of naming messages through: none at all would be every message.
func oneKind(c *cobra.Command, args []string) error {
	filtered := slices.ContainsFunc(filterNames(), func(name string) bool { return c.Flag(name).Changed })
	kinds := 0
	for _, given := range []bool{len(args) > 0, filtered, c.Flag("all").Value.String() == "true"} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		return errors.New("say which messages: IDs, or a filter such as --domain D, or --all")
	}
	return nil
}

// confirmRemoval asks, with the number of messages. It returns false without an error if there is
// nothing to remove.
func (t *tool) confirmRemoval(ctx context.Context, client *control.Client, f *filter) (bool, error) {
	if err := t.canAsk(); err != nil {
		return false, err
	}
	progress := t.progress(false)
	progress.show("counting the messages")
	n, err := client.Count(ctx, f.Filter)
	progress.clear()
	if err != nil {
		return false, err
	}
	if n == 0 {
		t.endChanges(&array{t: t, before: changedIDs}, 0)
		return false, nil
	}
	which := f.String()
	if !f.given() {
		which = "which is the whole queue"
	}
	if err := t.confirm(fmt.Sprintf("This forgets %s, %s, and tells nobody.", count(n, "message"), which)); err != nil {
		return false, err
	}
	return true, nil
}

// changedIDs is how the JSON of a change begins.
const changedIDs = `{"ids": [`

// endChanges ends the answer, in which n messages stand.
func (t *tool) endChanges(ids *array, n int) {
	if t.json {
		ids.end("]}")
	} else if n == 0 {
		t.say("%s", noneSo)
	}
}

// change has the daemon make a change and prints each message when it is changed. What is not
// goes to standard error.
func (t *tool) change(ctx context.Context, client *control.Client, c change) error {
	done, failed := 0, 0
	progress := t.progress(true)
	ids := &array{t: t, before: changedIDs}
	err := interruptible(ctx, func(ctx context.Context) error {
		return client.ChangeEach(ctx, c.verb, c.sel, func(m control.Changed) bool {
			switch {
			case m.Error != "":
				failed++
				progress.clear()
				fmt.Fprintf(t.err, "relay-util: %s: %s\n", m.ID, m.Error)
			case t.json:
				done++
				ids.put(m.ID)
			default:
				done++
				t.say("%s %s", m.ID, c.done)
			}
			if progress.due() {
				progress.show(count(done, "message") + " " + c.done)
			}
			return true
		})
	})
	progress.clear()
	if err == nil {
		t.endChanges(ids, done+failed)
	}
	if errors.Is(err, errInterrupted) {
		return fmt.Errorf("interrupted: %s %s, perhaps also some of which relayd had not told yet; the rest are as they were", count(done, "message"), c.done)
	}
	if err == nil && failed > 0 {
		err = errNo
	}
	return err
}
