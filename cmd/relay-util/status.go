package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"relayd/control"
	"relayd/problem"
)

func (t *tool) daemonVerbs() []*cobra.Command { return []*cobra.Command{t.status(), t.reload()} }

func (t *tool) status() *cobra.Command {
	c := &cobra.Command{
		Use:     "status",
		Short:   "Show what the daemon does, and which files are not in force as they stand.",
		Example: "relay-util status",
	}
	return t.verb(c, cobra.NoArgs, func(ctx context.Context, _ []string) error {
		client, err := t.daemon()
		if err != nil {
			return err
		}
		s, err := client.Status(ctx)
		if err != nil {
			return err
		}
		if t.json {
			return t.printJSON(s)
		}
		return t.printStatus(s)
	})
}

func (t *tool) printStatus(s control.Status) error {
	tw := t.table()
	fmt.Fprintf(tw, "relayd\t%s on %s, started %s\n", s.Version, s.Hostname, t.when(s.Started))
	var listeners []string
	for _, l := range s.Listeners {
		listeners = append(listeners, l.Service+" "+l.Address)
	}
	fmt.Fprintf(tw, "listens on\t%s\n", strings.Join(listeners, ", "))
	fmt.Fprintf(tw, "connections\t%d\n", s.Connections)
	fmt.Fprintf(tw, "queue\t%s\n", t.queueLine(s.Queue))
	for _, cert := range s.Certs {
		fmt.Fprintf(tw, "certificate\t%s\n", t.certLine(cert))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if len(s.Domains) > 0 {
		t.say("")
	}
	if err := t.printDomains(s.Domains); err != nil {
		return err
	}
	t.printProblems("problems (see `relayd -check`):", s.Problems)
	t.printProblems("warnings:", s.Warnings)
	return nil
}

func (t *tool) queueLine(q control.QueueStatus) string {
	line := count(q.Messages, "message")
	if q.Held > 0 {
		line += fmt.Sprintf(", %d held", q.Held)
	}
	if !q.Oldest.IsZero() {
		line += ", the oldest received " + t.when(q.Oldest)
	}
	return line
}

func (t *tool) certLine(c control.Certificate) string {
	line := strings.Join(c.Names, ", ")
	if c.Expires.Before(t.now()) {
		line += ", expired " + t.when(c.Expires)
	} else {
		line += ", expires " + t.when(c.Expires)
	}
	if c.SelfSigned {
		line += ", self-signed"
	}
	if c.File != "" {
		line += ", " + c.File
	}
	return line
}

func (t *tool) printProblems(title string, list problem.List) {
	if len(list) > 0 {
		t.say("\n%s\n%s", title, list)
	}
}

func (t *tool) reload() *cobra.Command {
	c := &cobra.Command{
		Use:     "reload",
		Short:   "Have the daemon read its files now, and print what is wrong with them.",
		Example: "relay-util reload",
	}
	return t.verb(c, cobra.NoArgs, func(ctx context.Context, _ []string) error {
		client, err := t.daemon()
		if err != nil {
			return err
		}
		problems, err := client.Reload(ctx)
		if err != nil {
			return err
		}
		switch {
		case t.json:
			if err := t.printJSON(append(problem.List{}, problems...)); err != nil {
				return err
			}
		case len(problems) == 0:
			t.say("all files are in force")
		default:
			t.say("%s", problems)
		}
		if len(problems) > 0 {
			return errNo
		}
		return nil
	})
}
