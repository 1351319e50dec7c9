package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"relayd/dns"
	"relayd/doctor"
	"relayd/setup"
)

// programTime bounds what setup has another program do; systemd waits for relayd to be up.
const programTime = 3 * time.Minute

func (t *tool) setupVerbs() []*cobra.Command {
	return []*cobra.Command{t.setup(), t.uninstall()}
}

// setupFlags are those of setup.
type setupFlags struct {
	setup.Options
	dry bool
}

func (t *tool) setup() *cobra.Command {
	c := &cobra.Command{
		Use:   "setup DOMAIN",
		Short: "Make this machine a relay for a domain: settings, keys, a user, and relayd started.",
		Long: "Make this machine a relay for a domain: programs, system user, settings, certificate by ACME, DKIM key, a catch-all\n" +
			"that forwards, a user with a password, and relayd started. Then print the DNS records to publish, what is not\n" +
			"as it should be yet, and what to type into Gmail. Run it again after publishing: what stands is left as it is.\n" +
			"With another domain it adds that one. Exits with 0 once all is made, whatever the check says.",
		Example: "relay-util setup example.org --forward me@gmail.com",
	}
	var f setupFlags
	c.Flags().StringVar(&f.Forward, "forward", "", "forward the mail for all names of the domain to `ADDR`")
	c.Flags().StringVar(&f.Hostname, "hostname", "", "the `NAME` of this server; default: the reverse DNS of its address")
	c.Flags().StringVar(&f.User, "user", "app", "the `NAME` of the user who may send")
	c.Flags().StringVar(&f.Webroot, "webroot", "", "prove the hostname to the certificate authority by files in `DIR`, which a web server serves")
	c.Flags().StringVar(&f.Root, "root", "", "work in another root file system, `DIR`, for image builds; nothing is started")
	c.Flags().BoolVar(&f.dry, "dry-run", false, "say what would be made, and make nothing")
	return t.verb(c, between(1, 1), func(ctx context.Context, args []string) error {
		f.Domain = args[0]
		return t.runSetup(ctx, c, f)
	})
}

func (t *tool) runSetup(ctx context.Context, c *cobra.Command, f setupFlags) error {
	if err := t.underRoot(c, &f.Root); err != nil {
		return err
	}
	if self, err := os.Executable(); err == nil { // else the programs must be installed
		f.Programs = filepath.Dir(self)
	}
	f.Ask, f.World = t.question, t.machine(f.Root)
	if !f.dry && f.Root == "" && os.Geteuid() != 0 {
		return fmt.Errorf("setting up a machine: %w", fs.ErrPermission)
	}
	plan, err := setup.New(ctx, f.Options)
	if err != nil {
		return err
	}
	if f.dry {
		return t.printDryRun(plan)
	}
	report, err := t.carryOut(ctx, plan)
	if err != nil {
		return err
	}
	if err := report.lookAround(ctx, t, f); err != nil {
		return err
	}
	return report.print(t)
}

// underRoot makes the settings those of a root file system.
func (t *tool) underRoot(c *cobra.Command, root *string) error {
	if c.Flags().Changed("config") {
		return errors.New("it is /etc/relayd/relayd.toml that is set up; --root DIR is for another root file system")
	}
	if *root == "" {
		return nil
	}
	dir, err := filepath.Abs(*root)
	if err == nil && dir == "/" {
		dir = "" // no other
	}
	*root, t.configFile = dir, filepath.Join("/", dir, t.configFile)
	if err != nil || dir == "" {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "etc/passwd")); err != nil {
		return fmt.Errorf("--root: %s is no root file system: %w", dir, err)
	}
	return nil
}

// machine is this machine. Of one that an image is for nothing is known.
func (t *tool) machine(root string) setup.World {
	w := setup.World{Addresses: doctor.PublicAddresses, Free: portFree, Run: runProgram}
	if root != "" {
		w.Addresses = func() ([]netip.Addr, error) { return nil, nil }
		return w
	}
	servers, _ := t.dnsServers() // broken settings are told of elsewhere
	w.PTR = dns.New(dns.Options{Servers: servers}).PTR
	_, err := os.Stat("/run/systemd/system") // sd_booted(3)
	w.Booted = err == nil
	return w
}

func portFree(port int) bool {
	l, err := net.Listen("tcp", ":"+strconv.Itoa(port))
	if err == nil {
		_ = l.Close() // nothing was ever accepted
	}
	return !errors.Is(err, syscall.EADDRINUSE) // others than root, for a dry run, may not listen at all
}

// runProgram runs a program, whose words become the error if it fails.
func runProgram(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, programTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// question asks on the terminal.
func (t *tool) question(q setup.Question) (string, error) {
	if _, ok := t.terminal(); !ok {
		return "", fmt.Errorf("%w: %s; give it with --%s", errNoTerminal, q.Text, q.Flag)
	}
	if q.Default != "" {
		q.Text += " [" + q.Default + "]"
	}
	fmt.Fprintf(t.err, "%s: ", q.Text)
	line, err := bufio.NewReader(t.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	if line = strings.TrimSpace(line); line == "" {
		line = q.Default
	}
	return line, nil
}

func (t *tool) printDryRun(plan *setup.Plan) error {
	if t.json {
		return t.printJSON(setupReport{Hostname: plan.Config.Hostname, Domain: plan.Domain, Found: plan.Found, Made: []string{}, Missing: plan.Steps(), Records: []doctor.Record{}, Findings: []doctor.Finding{}})
	}
	for _, line := range plan.Found {
		t.say("found       %s", line)
	}
	for _, what := range plan.Steps() {
		t.say("would make  %s", what)
	}
	if len(plan.Steps()) == 0 {
		t.say("nothing is to be done: all stands already")
	}
	return nil
}

// carryOut makes what the plan says. A password that was made is shown also if something after it fails.
func (t *tool) carryOut(ctx context.Context, plan *setup.Plan) (*setupReport, error) {
	r := &setupReport{Hostname: plan.Config.Hostname, Domain: plan.Domain, Found: plan.Found, Made: []string{}, start: plan.StartCommand()}
	speak := func(format string, args ...any) {
		if !t.json {
			t.say(format, args...)
			t.out.Flush()
		}
	}
	for _, line := range plan.Found {
		speak("found  %s", line)
	}
	err := plan.Run(ctx, func(what string) {
		r.Made = append(r.Made, what)
		speak("made   %s", what)
	})
	if err != nil && plan.Password != "" {
		t.say("the password of %s: %s", plan.User, plan.Password)
	}
	if len(r.Made) == 0 {
		speak("nothing was to be done: all stands already")
	}
	r.Gmail = gmailForm{Server: plan.Config.Hostname, Port: 587, User: plan.User.String(), Password: plan.Password, TLS: "Secured connection using TLS"}
	return r, err
}

func (t *tool) uninstall() *cobra.Command {
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop relayd for good; say what would go and what stays, and with --yes do it.",
		Long: "Stop relayd for good. Without --yes it only says what would go and what stays. The settings, keys and the queue go\n" +
			"with --purge only, and while mail waits in the queue only with --discard-mail.",
		Example: "relay-util uninstall --yes",
	}
	var opt setup.RemovalOptions
	yes := c.Flags().Bool("yes", false, "do it")
	c.Flags().BoolVar(&opt.Purge, "purge", false, "the settings, users, keys and the queue, too")
	c.Flags().BoolVar(&opt.DiscardMail, "discard-mail", false, "with --purge: also if mail waits in the queue, which is lost then")
	c.Flags().StringVar(&opt.Root, "root", "", "work in another root file system, `DIR`")
	c.PreRunE = func(*cobra.Command, []string) error {
		if opt.DiscardMail && !opt.Purge {
			return errors.New("--discard-mail goes with --purge, without which the mail stays")
		}
		return nil
	}
	return t.verb(c, between(0, 0), func(ctx context.Context, _ []string) error {
		if err := t.underRoot(c, &opt.Root); err != nil {
			return err
		}
		if *yes && opt.Root == "" && os.Geteuid() != 0 {
			return fmt.Errorf("taking relayd off a machine: %w", fs.ErrPermission) // systemctl's own error says nothing of sudo
		}
		opt.World, opt.Waiting = t.machine(opt.Root), func(ctx context.Context) (int, bool, error) { return setup.Waiting(ctx, opt.Root) }
		return t.runUninstall(ctx, setup.NewRemoval(opt), *yes)
	})
}

// A removalReport is what `uninstall --json` prints.
type removalReport struct {
	Removed []string `json:"removed"`
	Missing []string `json:"would_remove,omitempty"` // what --yes would remove
	Stays   []string `json:"stays"`
}

func (t *tool) runUninstall(ctx context.Context, r *setup.Removal, yes bool) error {
	report := removalReport{Removed: []string{}, Stays: append([]string{}, r.Stays...)}
	speak := func(format string, args ...any) {
		if !t.json {
			t.say(format, args...)
		}
	}
	if yes {
		err := r.Run(ctx, func(what string) {
			report.Removed = append(report.Removed, what)
			speak("removed       %s", what)
		})
		if err != nil {
			return err
		}
	} else {
		report.Missing = r.Steps()
		for _, what := range report.Missing {
			speak("would remove  %s", what)
		}
	}
	if t.json {
		return t.printJSON(report)
	}
	for _, what := range report.Stays {
		t.say("stays         %s", what)
	}
	return nil
}
