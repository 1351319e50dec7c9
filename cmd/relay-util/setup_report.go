package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"relayd/checkup"
	"relayd/doctor"
)

// maxLines is how many lines setup prints, as far as that can be: what does not fit, `check` says.
const maxLines = 40

// A setupReport is what setup found and made, as --json prints it.
type setupReport struct {
	Hostname string           `json:"hostname"`
	Domain   string           `json:"domain"`
	Found    []string         `json:"found"`
	Made     []string         `json:"made"`
	Missing  []string         `json:"missing,omitempty"` // what a run would make
	Records  []doctor.Record  `json:"records"`
	Findings []doctor.Finding `json:"findings"`
	Start    string           `json:"start,omitempty"` // the command that starts relayd, if none runs
	Gmail    gmailForm        `json:"gmail"`

	start string
}

// A gmailForm is what Gmail asks for to send mail as an address.
type gmailForm struct {
	Server   string `json:"server"`
	Port     int    `json:"port"`
	User     string `json:"user"`
	Password string `json:"password,omitempty"`
	TLS      string `json:"tls"`
}

// lookAround finds out which records are needed and how things stand. Of an image there are only the
// records.
func (r *setupReport) lookAround(ctx context.Context, t *tool, f setupFlags) error {
	w, err := t.world()
	if err != nil {
		return err
	}
	d := w.Get(r.Domain)
	if err := d.Broken.Err(); err != nil {
		return err
	}
	site := checkup.Site(w.Config, d)
	if f.Root != "" {
		r.Records, r.Findings = doctor.Needed(site), []doctor.Finding{}
		return nil
	}
	if len(r.Made) > 0 {
		t.nudge(w.place, w.folders[r.Domain])
	}
	ctx, cancel := context.WithTimeout(ctx, checkup.Time)
	defer cancel()
	c := w.checkup(ctx, checkup.GmailMX)
	defer c.Close()
	if !c.Runs() && !f.World.Booted {
		r.Start = r.start
	}
	site.Addresses = c.Addresses()
	r.Records = doctor.Needed(site)
	ours := "records of " + r.Domain
	checks := slices.DeleteFunc(c.Checks(), func(one doctor.Check) bool { return one.Name == ours || one.Name == "reverse DNS" })
	checks = append(checks, doctor.Check{Name: ours, Run: func(ctx context.Context) []doctor.Finding { return c.CheckRecords(ctx, site) }})
	r.Findings = t.runChecks(ctx, checks)
	return nil
}

func (r *setupReport) print(t *tool) error {
	if t.json {
		return t.printJSON(r)
	}
	if err := r.printRecords(t); err != nil {
		return err
	}
	r.printTrouble(t)
	g := r.Gmail
	password := g.Password
	if password == "" {
		password = "as it was shown when the user was made; a new one: relay-util user-passwd " + g.User + " --generate"
	}
	t.say("\nIn Gmail: Settings, Accounts, Add another email address: any name@%s", r.Domain)
	t.say("  SMTP server  %s\n  Port         %d\n  User name    %s\n  Password     %s\n  TLS          %s", g.Server, g.Port, g.User, password, g.TLS)
	if r.Start != "" {
		t.say("\nThere is no systemd here. Start relayd with: %s", r.Start)
	}
	return nil
}

func (r *setupReport) printRecords(t *tool) error {
	t.say("\nRecords for the DNS of %s (TXT without quotes):", r.Domain)
	tw := t.table()
	for _, record := range r.Records {
		value := record.Value
		if value == "" {
			value = "(" + record.Why + ")"
		}
		if record.Where != "" {
			value += "  (" + record.Where + ")"
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", r.state(record), record.Name, record.Type, value)
	}
	return tw.Flush()
}

// state is a word for how a record stands.
func (r *setupReport) state(record doctor.Record) string {
	i := slices.IndexFunc(r.Findings, func(f doctor.Finding) bool { return about(f, record) })
	switch {
	case i < 0:
		return "-"
	case r.Findings[i].Status == doctor.OK:
		return "ok"
	case isMissing(r.Findings[i]):
		return "missing"
	case r.Findings[i].Status == doctor.Warn || has(r.Findings[i], record.Value):
		return "look" // at what the check says: it is more than this record
	}
	return "WRONG"
}

func about(f doctor.Finding, r doctor.Record) bool { return f.Name == r.Name && f.Type == r.Type }

// has reports whether a value is one of those that were found, with or without a dot at the end.
func has(f doctor.Finding, value string) bool {
	bare := func(s string) string { return strings.TrimSuffix(s, ".") }
	return slices.ContainsFunc(f.Found, func(found string) bool { return bare(found) == bare(value) })
}

// isMissing reports whether a finding is of a record that is simply not there.
func isMissing(f doctor.Finding) bool {
	return f.Type != "" && len(f.Found) == 0 && f.Status == doctor.Fail
}

// room is how many lines are left for trouble: the table, the check and the form have a blank line and
// a title each, and the form has five lines.
func (r *setupReport) room() int {
	used := len(r.Found) + max(1, len(r.Made)) + len(r.Records) + 3*2 + 5
	if r.Start != "" {
		used += 2
	}
	return max(2, maxLines-used)
}

// printTrouble prints what is not as it should be and not said by the table.
func (r *setupReport) printTrouble(t *tool) {
	if len(r.Findings) == 0 {
		return
	}
	var list []doctor.Finding
	good, missing := 0, 0
	for _, f := range r.Findings {
		switch {
		case isMissing(f):
			missing++
		case f.Status == doctor.Fail || f.Status == doctor.Warn:
			list = append(list, f)
		case f.Status == doctor.OK:
			good++
		}
	}
	summary := fmt.Sprintf("\nCheck: %s right", count(good, "thing"))
	if missing > 0 {
		summary += fmt.Sprintf(", %s missing", count(missing, "record"))
	}
	t.say("%s. Again at any time: relay-util check", summary)
	room := r.room()
	for i, f := range list {
		if i+1 >= room && len(list) > room {
			t.say("and %d more", len(list)-i)
			return
		}
		word := string(f.Status)
		if f.Status == doctor.Fail {
			word = t.red("FAIL")
		}
		todo := ""
		if f.Do != "" {
			todo = " → " + f.Do
		}
		t.say("%-4s  %s: %s", word, f.Subject, oneLine(f.Text+todo))
	}
}
