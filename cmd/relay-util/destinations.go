package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"relayd/control"
)

func (t *tool) destinations() *cobra.Command {
	c := &cobra.Command{
		Use:   "destinations",
		Short: "Show how the servers fare that mail goes to, by the group that one operator runs.",
		Long: "Show how the servers fare that mail goes to, by the group that one operator runs: how many recipients\n" +
			"wait, how many attempts are made at once and may be, until when nothing is sent because the servers\n" +
			"asked for that, and what they said last.",
		Example: "relay-util destinations",
	}
	return t.ask(c, between(0, 0), func(ctx context.Context, client *control.Client, _ []string) error {
		list, err := client.Destinations(ctx)
		if err != nil {
			return err
		}
		if t.json {
			return t.printJSON(list)
		}
		return t.printDestinations(list)
	})
}

func (t *tool) printDestinations(list []control.Destination) error {
	if len(list) == 0 {
		t.say("nothing was sent of late, and nothing waits")
		return nil
	}
	tw := t.table()
	fmt.Fprintln(tw, "DESTINATION\tWAITING\tATTEMPTS\tPAUSED\tIPV6\tLAST REPLY")
	for _, d := range list {
		attempts, paused, note, last := "-", "-", "-", "-"
		if d.Window > 0 {
			attempts = fmt.Sprintf("%d of %d", d.Used, d.Window)
		}
		if !d.Paused.IsZero() {
			paused = "ends " + t.when(d.Paused)
		}
		if d.Note != "" {
			note = oneLine(d.Note)
		}
		if d.LastReply != "" {
			last = t.when(d.LastAt) + ": " + oneLine(d.LastReply)
		}
		fmt.Fprintf(tw, "%s\t%d\t%s\t%s\t%s\t%s\n", oneLine(d.Name), d.Waiting, attempts, paused, note, last)
	}
	return tw.Flush()
}
