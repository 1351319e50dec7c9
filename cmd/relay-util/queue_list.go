package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"relayd/control"
)

// A listing is which messages to show.
type listing struct {
	*filter
	limit uint // 0: all
	watch bool
}

func (t *tool) queueList() *cobra.Command {
	c := &cobra.Command{
		Use:   "queue-list",
		Short: "List the messages in the queue, oldest first.",
		Long: "List the messages in the queue, oldest first. Of several filters all must hold.\n" +
			"--watch shows the state of the queue anew every two seconds until Ctrl-C: its totals, the groups of\n" +
			"destinations that have something under way, and the oldest messages.",
		Example: "relay-util queue-list --domain gmail.com --older 3d --limit 20",
	}
	l := &listing{filter: t.filterFlags(c)}
	c.Flags().UintVar(&l.limit, "limit", 0, "no more than the `N` oldest (--watch: 10)")
	c.Flags().BoolVar(&l.watch, "watch", false, "show it anew every two seconds, on a terminal")
	alone := func(c *cobra.Command, args []string) error {
		if l.watch && t.json {
			return errors.New("--watch is for eyes: leave out --json, or --watch")
		}
		return between(0, 0)(c, args)
	}
	return t.ask(c, alone, func(ctx context.Context, client *control.Client, _ []string) error {
		switch {
		case l.watch:
			return t.watch(ctx, client, l)
		case t.json:
			return t.streamMessages(ctx, client, l)
		}
		return t.tabulateMessages(ctx, client, l)
	})
}

// streamMessages prints each message when it arrives. An array that was cut short is not closed,
// so that no program takes it for the whole.
func (t *tool) streamMessages(ctx context.Context, client *control.Client, l *listing) error {
	array, failed := &array{t: t, before: "["}, error(nil)
	err := client.List(ctx, l.Filter, int(l.limit), func(m control.Message) bool {
		failed = array.put(m)
		return failed == nil
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	array.end("]")
	return nil
}

// An array prints JSON one element a line. Nothing is printed before there is an element, or the
// end.
type array struct {
	t      *tool
	before string // what stands in front of the elements, with the bracket
	count  int
}

func (a *array) put(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	sep := ",\n"
	if a.count == 0 {
		sep = a.before + "\n"
	}
	a.count++
	_, err = fmt.Fprintf(a.t.out, "%s%s", sep, text)
	return err
}

// end prints what stands behind the elements, with the bracket.
func (a *array) end(after string) {
	if a.count > 0 {
		a.t.say("\n%s", after)
	} else {
		a.t.say("%s%s", a.before, after)
	}
}

// A long queue is shown before all of it is here.
const (
	pageRows = 200         // after which a table begins its columns anew
	pageTime = time.Second // after which the next row brings those before it
)

const messageColumns = "ID\tSIZE\tRECEIVED\tSTATE\tNEXT\tSENDER\tRECIPIENTS"

func (t *tool) tabulateMessages(ctx context.Context, client *control.Client, l *listing) error {
	tw, rows, began := t.table(), 0, t.now()
	err := client.List(ctx, l.Filter, int(l.limit), func(m control.Message) bool {
		if rows%pageRows == 0 || t.now().Sub(began) >= pageTime {
			if rows > 0 && (tw.Flush() != nil || t.out.Flush() != nil) {
				return false
			}
			began = t.now()
		}
		if rows%pageRows == 0 {
			fmt.Fprintln(tw, messageColumns)
		}
		rows++
		fmt.Fprintln(tw, t.messageRow(m))
		return true
	})
	if err != nil {
		return err
	}
	if rows == 0 && l.given() {
		t.say("%s", noneSo)
	} else if rows == 0 {
		t.say("the queue is empty")
	}
	return tw.Flush()
}

func (t *tool) messageRow(m control.Message) string {
	return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s", m.ID, size(m.Size), t.when(m.Received), state(m.State, m.ByAdmin), t.next(m), sender(m), recipients(m))
}

// state tells mail that somebody holds from mail that is held until a cause is mended.
func state(name string, byAdmin bool) string {
	if byAdmin {
		return name + " (by you)"
	}
	return name
}
