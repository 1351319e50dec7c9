package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"relayd/checkup"
	"relayd/doctor"
	"relayd/problem"
)

func (t *tool) checkup() *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Look at everything that mail depends on, and say what to do.",
		Long: "Look at everything that mail depends on, and say what to do: settings, files, disk, ports, certificates, DNS,\n" +
			"reverse DNS, port 25 outwards, block lists, smarthosts, clock, queue, and the records of each domain.\n" +
			"Nothing is changed, and no mail is sent. Takes up to a minute. Exits with 1 if there is a FAIL.",
		Example: "relay-util check",
	}
	target := c.Flags().String("target", checkup.GmailMX, "rehearse a delivery with the mail server `HOST`")
	return t.verb(c, between(0, 0), func(ctx context.Context, _ []string) error {
		w, err := t.world()
		if list, ok := errors.AsType[problem.List](err); ok {
			return t.printFindings(checkup.Complaints(list, "mend it: nothing else can be checked before"))
		}
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(ctx, checkup.Time)
		defer cancel()
		c := w.checkup(ctx, *target)
		defer c.Close()
		return t.printFindings(t.runChecks(ctx, c.Checks()))
	})
}

// checkup begins one of everything here.
func (w world) checkup(ctx context.Context, target string) *checkup.Checkup {
	return checkup.New(ctx, checkup.Options{Config: w.Config, Domains: w.Set, Resolver: w.resolver(), Target: target})
}

// runChecks shows how far they are; the answer comes behind it.
func (t *tool) runChecks(ctx context.Context, list []doctor.Check) []doctor.Finding {
	p := t.progress(false)
	found := doctor.Run(ctx, list, func(done, total int) {
		if p.due() {
			p.show(fmt.Sprintf("%d of %d checks are done", done, total))
		}
	})
	p.clear()
	return found
}
