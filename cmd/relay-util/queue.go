package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relayd/address"
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
		t.queueChange("remove", "removed", "Forget messages; neither sender nor recipient is told."),
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

// domainFlag gives a verb --domain. Its value is brought into normal form, since the daemon
// compares it as it is.
func domainFlag(c *cobra.Command) *string {
	domain := c.Flags().String("domain", "", "only messages to `DOMAIN`, or to an alias in it")
	c.PreRunE = func(*cobra.Command, []string) (err error) {
		if c.Flags().Changed("domain") {
			*domain, err = address.Domain(*domain)
		}
		return err
	}
	return domain
}

func (t *tool) queueList() *cobra.Command {
	c := &cobra.Command{
		Use:     "queue-list",
		Short:   "List the messages that wait, oldest first.",
		Example: "relay-util queue-list --domain gmail.com",
	}
	domain := domainFlag(c)
	return t.verb(c, cobra.NoArgs, func(ctx context.Context, _ []string) error {
		client, err := t.daemon()
		if err != nil {
			return err
		}
		if t.json {
			return t.streamMessages(ctx, client, *domain)
		}
		return t.tabulateMessages(ctx, client, *domain)
	})
}

// streamMessages prints each message when it arrives. An array that was cut short is not closed,
// so that no program takes it for the whole.
func (t *tool) streamMessages(ctx context.Context, client *control.Client, domain string) error {
	sep, failed := "[", error(nil)
	err := client.List(ctx, domain, func(m control.Message) bool {
		var text []byte
		if text, failed = json.Marshal(m); failed == nil {
			_, failed = fmt.Fprintf(t.out, "%s\n%s", sep, text)
		}
		sep = ","
		return failed == nil
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	if sep == "[" {
		t.say("[]")
	} else {
		t.say("\n]")
	}
	return nil
}

// pageRows is after how many rows a table begins its columns anew: a long queue is shown before
// all of it is here.
const pageRows = 200

func (t *tool) tabulateMessages(ctx context.Context, client *control.Client, domain string) error {
	tw, rows := t.table(), 0
	err := client.List(ctx, domain, func(m control.Message) bool {
		if rows%pageRows == 0 {
			if rows > 0 && (tw.Flush() != nil || t.out.Flush() != nil) {
				return false
			}
			fmt.Fprintln(tw, "ID\tSIZE\tRECEIVED\tSTATE\tNEXT\tSENDER\tRECIPIENTS")
		}
		rows++
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.ID, size(m.Size), t.when(m.Received), m.State, t.next(m), sender(m), recipients(m))
		return true
	})
	if err != nil {
		return err
	}
	if rows == 0 {
		t.say("nothing waits")
	}
	return tw.Flush()
}

func (t *tool) next(m control.Message) string {
	if m.Next.IsZero() {
		return "-"
	}
	return t.when(m.Next)
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

func (t *tool) queueShow() *cobra.Command {
	c := &cobra.Command{
		Use:     "queue-show ID",
		Short:   "Show a message: its recipients with what their servers said, and its header.",
		Example: "relay-util queue-show 1B2C3D4E5F6G7H8J",
	}
	return t.verb(c, cobra.ExactArgs(1), func(ctx context.Context, args []string) error {
		client, err := t.daemon()
		if err != nil {
			return err
		}
		d, err := client.Show(ctx, args[0])
		if err != nil {
			return err
		}
		if t.json {
			return t.printJSON(d)
		}
		return t.printDetail(d)
	})
}

func (t *tool) printDetail(d control.Detail) error {
	tw := t.table()
	fmt.Fprintf(tw, "id:\t%s\nsender:\t%s\n", d.ID, sender(d.Message))
	if d.User != "" {
		fmt.Fprintf(tw, "user:\t%s\n", oneLine(d.User))
	}
	fmt.Fprintf(tw, "received:\t%s\nsize:\t%s\nstate:\t%s\nnext:\t%s\n", t.when(d.Received), size(d.Size), d.State, t.next(d.Message))
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, r := range d.Recipients {
		t.printRecipient(r)
	}
	if d.Header != "" {
		t.say("\n%s", strings.TrimRight(plain(strings.ReplaceAll(d.Header, "\r\n", "\n")), "\n"))
	}
	return nil
}

func (t *tool) printRecipient(r control.Recipient) {
	t.say("\n%s", oneLine(r.Address))
	if r.Alias != "" {
		t.say("  for %s", oneLine(r.Alias))
	}
	line := fmt.Sprintf("  %s after %s", r.State, count(r.Attempts, "attempt"))
	if !r.Next.IsZero() {
		line += ", next " + t.when(r.Next)
	}
	t.say("%s", line)
	if r.LastReply == "" {
		return
	}
	line = "  last reply"
	if r.LastHost != "" {
		line += " of " + oneLine(r.LastHost)
	}
	if !r.LastTry.IsZero() {
		line += ", " + t.when(r.LastTry)
	}
	t.say("%s: %s", line, oneLine(r.LastReply))
}

// queueChange is a verb that does the same to all messages of a selection.
func (t *tool) queueChange(verb, done, short string) *cobra.Command {
	c := &cobra.Command{
		Use:     "queue-" + verb + " ID...|--domain D|--all",
		Short:   short,
		Example: "relay-util queue-" + verb + " --domain gmail.com",
	}
	domain := domainFlag(c)
	all := c.Flags().Bool("all", false, "every message of the queue")
	yes := new(bool)
	if verb == "remove" {
		yes = c.Flags().Bool("yes", false, "do not ask")
	}
	// An empty selection would be every message, so exactly one kind must be there.
	one := func(c *cobra.Command, args []string) error {
		kinds := 0
		for _, given := range []bool{len(args) > 0, c.Flags().Changed("domain"), *all} {
			if given {
				kinds++
			}
		}
		if kinds != 1 {
			return errors.New("say which messages: IDs, or --domain D, or --all")
		}
		return nil
	}
	return t.verb(c, one, func(ctx context.Context, args []string) error {
		client, err := t.daemon()
		if err != nil {
			return err
		}
		if verb == "remove" && len(args) == 0 && !*yes {
			if err := t.confirmRemoval(*domain); err != nil {
				return err
			}
		}
		ids, err := client.Change(ctx, verb, control.Selection{IDs: args, Domain: *domain, All: *all})
		if err != nil {
			return err
		}
		return t.printChanged(ids, done)
	})
}

func (t *tool) confirmRemoval(domain string) error {
	which := "every message of the queue"
	if domain != "" {
		which = "every message to " + domain
	}
	return t.confirm("This forgets " + which + " and tells nobody.")
}

func (t *tool) printChanged(ids []string, done string) error {
	if t.json {
		return t.printJSON(control.Changed{IDs: append([]string{}, ids...)})
	}
	for _, id := range ids {
		t.say("%s %s", id, done)
	}
	if len(ids) == 0 {
		t.say("no message is so")
	}
	return nil
}
