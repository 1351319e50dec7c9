package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"relayd/control"
	"relayd/problem"
)

func (t *tool) daemonVerbs() []*cobra.Command {
	return []*cobra.Command{t.status(), t.trace(), t.destinations(), t.bans(), t.unban(), t.reload()}
}

func (t *tool) status() *cobra.Command {
	c := &cobra.Command{
		Use:   "status",
		Short: "Show what the daemon does, and which files are not in force as they stand.",
		Long: "Show what the daemon does, and which files are not in force as they stand.\n" +
			"Exits with 1 if the queue is not well: what is to be done then stands at the top, in red on a terminal.",
		Example: "relay-util status",
	}
	return t.ask(c, between(0, 0), func(ctx context.Context, client *control.Client, _ []string) error {
		s, err := client.Status(ctx)
		if err != nil {
			return err
		}
		if t.json {
			err = t.printJSON(s)
		} else {
			t.printHealth(s.Health)
			t.printUrgent(s.ACME)
			err = t.printStatus(s)
		}
		if err == nil && !s.Health.OK() {
			err = errNo
		}
		return err
	})
}

// printHealth says what is wrong with the queue and what to do.
func (t *tool) printHealth(h control.Health) {
	if h.Failure != "" {
		t.say("%s", t.red("NO MAIL IS TAKEN: writing the queue to disk has failed."))
		t.say("  %s", oneLine(h.Failure))
		t.say("  What is in the queue goes on being delivered. Look at the disk (dmesg, df), mend it, then restart\n" +
			"  relayd: systemctl restart relayd\n")
	}
	if len(h.Damaged) > 0 {
		t.say("%s", t.red("THE QUEUE WAS DAMAGED. All that is whole in it is served; these files were set aside:"))
		for _, file := range h.Damaged {
			t.say("  %s", plain(file))
		}
		t.say("  Find out what is hit: relay-util queue-check\n")
	}
}

// printUrgent says which certificates run out.
func (t *tool) printUrgent(list []control.ACME) {
	for _, a := range list {
		if a.Urgent {
			t.say("%s", t.red("CERTIFICATE: "+oneLine(a.Text)+"."))
			t.say("  Mend what the error says, then have it tried at once: relay-util reload\n")
		}
	}
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
	if s.IPv6 != "" {
		fmt.Fprintf(tw, "IPv6\t%s\n", plain(s.IPv6))
	}
	fmt.Fprintf(tw, "filters\t%s\n", filterLine(s.Filters))
	fmt.Fprintf(tw, "queue\t%s\n", t.queueLine(s.Queue))
	fmt.Fprintf(tw, "attempts\t%s\n", attemptsLine(s.Queue.Attempts))
	fmt.Fprintf(tw, "queue log\t%s\n", logLine(s.Queue.Log))
	for _, cert := range s.Certs {
		fmt.Fprintf(tw, "certificate\t%s\n", t.certLine(cert))
	}
	for _, a := range s.ACME {
		fmt.Fprintf(tw, "ACME\t%s\n", t.acmeLine(a))
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

func filterLine(f control.Filters) string {
	uses := "none"
	if len(f.Uses) > 0 {
		uses = plain(strings.Join(f.Uses, ", "))
	}
	return fmt.Sprintf("%s; since the start refused %d by DNS list, %d by rspamd, %d by milter, %d put off", uses, f.DNSBL, f.Rspamd, f.Milter, f.Suspect)
}

func (t *tool) queueLine(q control.QueueStatus) string {
	line := count(q.Messages, "message")
	if q.Messages > 0 {
		line += " of " + size(q.Bytes)
	}
	if q.Held > 0 {
		line += fmt.Sprintf(", %d held", q.Held)
	}
	if !q.Oldest.IsZero() {
		line += ", the oldest received " + t.when(q.Oldest)
	}
	return line
}

func attemptsLine(a control.Attempts) string {
	return fmt.Sprintf("%d under way; since the start %d delivered, %d deferred, %d failed", a.Running, a.Delivered, a.Deferred, a.Failed)
}

func logLine(l control.LogStatus) string {
	line := count(l.Segments, "segment")
	if l.Syncs > 0 {
		line += fmt.Sprintf("; since the start %d changes in %d syncs of %.1f ms", l.Commits, l.Syncs, l.SyncSeconds*1000/float64(l.Syncs))
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

func (t *tool) acmeLine(a control.ACME) string {
	line := a.Name + ", "
	switch {
	case a.Expires.IsZero():
		line += "no certificate yet, next try "
	case a.Error != "":
		line += "next try "
	default:
		line += "renewal "
	}
	line += t.when(a.Next)
	if a.Error != "" {
		line += ", fails since " + t.when(a.Since) + ": " + oneLine(a.Error)
	}
	return line
}

func (t *tool) printProblems(title string, list problem.List) {
	if len(list) > 0 {
		t.say("\n%s\n%s", title, list)
	}
}

// sayInForce says that all files are in force, or which settings are not before a restart.
func (t *tool) sayInForce(ctx context.Context, client *control.Client) error {
	status, err := client.Status(ctx)
	if err != nil {
		return err
	}
	all := true
	for _, w := range status.Warnings {
		if filepath.Base(w.File) == filepath.Base(t.configFile) { // each may have come to it by another way
			t.say("%s", w)
			all = false
		}
	}
	if all {
		t.say("all files are in force")
	}
	return nil
}

func (t *tool) reload() *cobra.Command {
	c := &cobra.Command{
		Use:     "reload",
		Short:   "Have the daemon read its files now, and print what is wrong with them.",
		Example: "relay-util reload",
	}
	return t.ask(c, between(0, 0), func(ctx context.Context, client *control.Client, _ []string) error {
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
			return t.sayInForce(ctx, client)
		default:
			t.say("%s", problems)
		}
		if len(problems) > 0 {
			return errNo
		}
		return nil
	})
}
