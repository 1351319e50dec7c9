package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"relayd/control"
)

func (t *tool) bans() *cobra.Command {
	c := &cobra.Command{
		Use:   "bans [IP|ADDR|DOMAIN]",
		Short: "Show who may not log in for guessing passwords, and which accounts are guessed at.",
		Long: "Show who may not log in for guessing passwords, and which accounts are guessed at.\n" +
			"A source, an IPv4 address or an IPv6 /64, is refused at AUTH until its ban ends; mail on port 25 is taken from\n" +
			"it. An account that is guessed at stays open to where it has logged in from before, and is slow for all others.",
		Example: "relay-util bans 203.0.113.7",
	}
	return t.ask(c, between(0, 1), func(ctx context.Context, client *control.Client, args []string) error {
		var sel control.BanSelection
		if len(args) > 0 {
			sel.Name = args[0]
		}
		list, err := client.Bans(ctx, sel)
		if err != nil {
			return err
		}
		if t.json {
			return t.printJSON(list)
		}
		if len(list) == 0 {
			t.say("nobody is banned")
			return nil
		}
		tw := t.table()
		fmt.Fprintln(tw, "KIND\tNAME\tENDS\tTIMES")
		for _, b := range list {
			fmt.Fprintf(tw, "%s\t%s\t%s\t%d\n", oneLine(b.Kind), oneLine(b.Name), t.when(b.Until), b.Times)
		}
		return tw.Flush()
	})
}

func (t *tool) unban() *cobra.Command {
	c := &cobra.Command{
		Use:   "unban IP|ADDR|--all",
		Short: "Let somebody log in again who is banned, and forget what was counted.",
		Long: "Let somebody log in again who is banned, and forget what was counted: an IP address or a network,\n" +
			"the address of an account that is guessed at, a domain for all its accounts, or everything.\n" +
			"Exits with 1 if there was no such ban.",
		Example: "relay-util unban 203.0.113.7",
	}
	all := c.Flags().Bool("all", false, "every ban")
	oneOrAll := func(_ *cobra.Command, args []string) error {
		if len(args) > 1 || (len(args) == 1) == *all || len(args) == 1 && args[0] == "" {
			return errors.New("say who: an IP address, an account, or --all")
		}
		return nil
	}
	return t.ask(c, oneOrAll, func(ctx context.Context, client *control.Client, args []string) error {
		sel := control.BanSelection{All: *all}
		if len(args) > 0 {
			sel.Name = args[0]
		}
		list, err := client.Unban(ctx, sel)
		if err != nil {
			return err
		}
		if t.json {
			err = t.printJSON(list)
		} else if len(list) == 0 {
			t.say("there was no such ban")
		}
		for _, b := range list {
			if !t.json {
				t.say("%s %s is free again", oneLine(b.Kind), oneLine(b.Name))
			}
		}
		if err == nil && len(list) == 0 && !*all {
			err = errNo
		}
		return err
	})
}
