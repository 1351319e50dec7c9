package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"relayd/checkup"
	"relayd/config"
	"relayd/dns"
	"relayd/doctor"
)

func (t *tool) doctorVerbs() []*cobra.Command {
	return []*cobra.Command{t.dns(), t.checkup()}
}

func (t *tool) dns() *cobra.Command {
	c := &cobra.Command{
		Use:   "dns DOMAIN",
		Short: "Print the DNS records that a domain needs, or check those that it has.",
		Long: "Print the DNS records that a domain needs, or check those that it has.\n" +
			"With --check the authoritative servers of the zone are asked; exits with 1 if something keeps mail from arriving.",
		Example: "relay-util dns example.org --check",
	}
	check := c.Flags().Bool("check", false, "compare them with what the name servers say")
	zone := c.Flags().Bool("zone", false, "print them as lines of a zone file")
	all := c.Flags().Bool("all", false, "those too that are good to have: MTA-STS, TLS reports, SRV, CAA, TLSA")
	c.MarkFlagsMutuallyExclusive("check", "zone")
	c.MarkFlagsMutuallyExclusive("check", "all")
	return t.verb(c, between(1, 1), func(ctx context.Context, args []string) error {
		w, err := t.world()
		if err != nil {
			return err
		}
		name, err := w.hosted(args[0])
		if err != nil {
			return err
		}
		if err := w.Get(name).Broken.Err(); err != nil {
			return err
		}
		d := doctor.New(doctor.Options{Resolver: w.resolver(), Addresses: doctor.Leaving(w.Outbound.SourceIPv4, w.Outbound.SourceIPv6)})
		site := checkup.Site(w.Config, w.Get(name))
		if *check {
			return t.checkRecords(ctx, d, site)
		}
		site.Addresses = d.Addresses(ctx, site.Hostname)
		records := doctor.Needed(site)
		if *all {
			records = append(records, doctor.Further(site)...)
		}
		switch {
		case t.json:
			return t.printJSON(records)
		case *zone:
			t.say("%s", strings.TrimSuffix(doctor.ZoneFile(name, records), "\n"))
		default:
			err = t.printRecordTable(records)
		}
		if *all && err == nil {
			t.printPolicy(site, *zone)
		}
		return err
	})
}

// resolver is that of the settings.
func (p place) resolver() *dns.Resolver {
	trust := map[config.Trust]dns.Trust{config.TrustYes: dns.TrustAll, config.TrustNo: dns.TrustNone}[p.DNS.Trusted]
	return dns.New(dns.Options{Servers: p.DNS.Servers, Trust: trust})
}

// printRecordTable prints records as the forms of DNS providers want them: TXT whole and unquoted.
func (t *tool) printRecordTable(records []doctor.Record) error {
	tw := t.table()
	fmt.Fprintln(tw, "NAME\tTYPE\tVALUE")
	for _, r := range records {
		value := r.Value
		if value == "" {
			value = "(" + r.Why + ")"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", r.Name, r.Type, value)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	t.say("")
	var said []string
	for _, r := range records {
		line := r.Why + "."
		if r.Where != "" {
			line += " " + strings.ToUpper(r.Where[:1]) + r.Where[1:] + "."
		}
		if line = r.Type + " of " + r.Name + ": " + line; !slices.Contains(said, line) {
			said = append(said, line)
			t.say("%s", line)
		}
	}
	return nil
}

// printPolicy prints the MTA-STS policy that belongs to its record.
func (t *tool) printPolicy(s doctor.Site, zone bool) {
	prefix := ""
	if zone {
		prefix = "; "
	}
	t.say("%s", prefix)
	t.say("%shttps://mta-sts.%s/.well-known/mta-sts.txt is to answer:", prefix, s.Domain)
	for line := range strings.Lines(doctor.STSPolicy(s).String()) {
		t.say("%s%s", prefix, strings.TrimRight(line, "\n"))
	}
}

func (t *tool) checkRecords(ctx context.Context, d *doctor.Doctor, site doctor.Site) error {
	check := doctor.Check{Name: "records of " + site.Domain, Run: func(ctx context.Context) []doctor.Finding {
		list := d.CheckRecords(ctx, site)
		return append(list, doctor.DMARCAdvice(site.Domain, list)...)
	}}
	return t.printFindings(doctor.Run(ctx, []doctor.Check{check}, nil))
}

// printFindings prints a line for each finding, and what is to be done behind it. The answer is no
// if one of them failed.
func (t *tool) printFindings(list []doctor.Finding) error {
	if t.json {
		if err := t.printJSON(append([]doctor.Finding{}, list...)); err != nil {
			return err
		}
	} else {
		for _, f := range list {
			t.printFinding(f)
		}
	}
	if !doctor.OKAll(list) {
		return errNo
	}
	return nil
}

func (t *tool) printFinding(f doctor.Finding) {
	word := string(f.Status)
	if f.Status == doctor.Fail {
		word = t.red("FAIL")
	}
	t.say("%-4s  %s: %s", word, f.Subject, oneLine(f.Text))
	if f.Do != "" {
		t.say("      → %s", oneLine(f.Do))
	}
}
