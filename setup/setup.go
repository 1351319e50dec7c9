// Package setup turns a bare server into a relay: programs, system user, folders, settings, SRS
// secret, a domain with its DKIM key and a catch-all, a user, and the systemd unit.
//
// It promises:
//
//   - New looks and asks, and changes nothing; Run makes what New found missing, and no more. What
//     stands already is left as it is, to the byte, so that a second run changes nothing.
//   - Each thing is made in one step. After an error what was made stays, and the next run goes on
//     from there.
//   - The password of the user is in Plan.Password and, as a hash, in the users file; nowhere else.
//
// It works in any root file system, so that images of machines can be built; then nothing is
// started. The records in DNS and whether the world is as it should be are the doctor's.
package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"relayd/address"
	"relayd/config"
	"relayd/domains"
	"relayd/etc"
)

// Where things are, seen from inside the root.
const (
	settingsFile = "/etc/relayd/relayd.toml"
	binDir       = "/usr/local/bin"
	account      = "relayd" // the system user, and its group
)

// Options say what is wanted. What is empty is found or asked for when it is needed.
type Options struct {
	Root     string // the file system that is worked in; "" is that of this machine
	Domain   string
	Forward  string // where the catch-all leads, and the postmaster's mail
	Hostname string
	User     string // name of the user of the domain, or the whole address; default "app"
	Webroot  string // the folder that another web server serves, for ACME's http-01
	Programs string // the folder of the running relay-util, to copy from

	World World
	Ask   func(Question) (string, error)
}

// A Question is about something that cannot be found.
type Question struct {
	Text    string // without a question mark
	Default string // what is taken if the answer is empty; "" for nothing
	Flag    string // the flag that answers it, without dashes
}

// A World is what setup sees of the machine beside files, and does to it.
type World struct {
	Addresses func() ([]netip.Addr, error) // that the world can reach
	PTR       func(context.Context, netip.Addr) ([]string, error)
	Free      func(port int) bool // whether a TCP port can be listened on
	Booted    bool                // systemd runs this machine
	// Run runs a program to its end; its error has what the program said.
	Run func(ctx context.Context, program string, args ...string) error
}

// A Plan is what is to be done. It is used by one goroutine.
type Plan struct {
	Config   *config.Config // in force afterwards; its paths are those inside the root
	Domain   string
	User     address.Address
	Found    []string // what was found or chosen, in sentences without a full stop
	Password string   // after Run: of the user, if it was made

	opt    Options
	folder string // of the domain
	relayd string // the program
	steps  []step
}

// A step makes one thing.
type step struct {
	what string
	do   func(context.Context) error
}

// New finds out what is to be done. Its errors say what to do about them, and those of Ask are in
// them.
func New(ctx context.Context, opt Options) (*Plan, error) {
	p := &Plan{opt: opt}
	if err := p.names(); err != nil {
		return nil, err
	}
	for _, look := range []func(context.Context) error{
		p.programs, p.account, p.settings, p.folders, p.secret, p.domain, p.user, p.systemd,
	} {
		if err := look(ctx); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// names checks what is given.
func (p *Plan) names() (err error) {
	if p.Domain, err = address.Domain(p.opt.Domain); err != nil {
		return err
	}
	if p.Domain[0] == '[' || !strings.Contains(p.Domain, ".") {
		return fmt.Errorf("%s is not a domain of the world's", p.Domain)
	}
	user := p.opt.User
	if user == "" {
		user = "app"
	}
	if !strings.Contains(user, "@") {
		user += "@" + p.Domain
	}
	if p.User, err = address.Parse(user); err != nil {
		return fmt.Errorf("--user: %w", err)
	}
	if p.User.Domain != p.Domain {
		return fmt.Errorf("--user: %s is not an address of %s", p.User, p.Domain)
	}
	return nil
}

// Steps are what is to be made, in order; none if all stands.
func (p *Plan) Steps() []string {
	list := []string{}
	for _, s := range p.steps {
		list = append(list, s.what)
	}
	return list
}

// Run makes it, and tells done of each thing that was made.
func (p *Plan) Run(ctx context.Context, done func(what string)) error {
	for _, s := range p.steps {
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w\nwhat was made before stays; mend this and run the same command again, which goes on from here", s.what, err)
		}
		done(s.what)
	}
	return nil
}

func (p *Plan) add(what string, do func(context.Context) error) {
	p.steps = append(p.steps, step{what, do})
}

func (p *Plan) found(format string, args ...any) {
	p.Found = append(p.Found, fmt.Sprintf(format, args...))
}

// at is the path of a file of the root as this process sees it.
func (p *Plan) at(path string) string { return filepath.Join(p.opt.Root, path) }

// here reports whether the machine itself is set up, and not an image of one.
func (p *Plan) here() bool { return p.opt.Root == "" }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// settings reads relayd.toml, or plans to write it. The example as it was installed, with a hostname
// that nobody has, counts as none.
func (p *Plan) settings(ctx context.Context) error {
	file := p.at(settingsFile)
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && string(text) != etc.Settings {
		if p.Config, err = config.Parse(file, text); err != nil {
			return fmt.Errorf("the settings that are there cannot be used; mend them first:\n%w", err)
		}
		return p.agrees()
	}
	hostname, err := p.hostname(ctx)
	if err != nil {
		return err
	}
	if err := p.portsFree(); err != nil {
		return err
	}
	forward, err := p.forward()
	if err != nil {
		return err
	}
	way, err := p.proof()
	if err != nil {
		return err
	}
	written, err := settingsText(etc.Settings, append([]value{
		{"hostname", hostname}, {"postmaster", forward.String()}, {"limits.user_messages_per_hour", 2000}, {"acme.enabled", true},
	}, way.values...))
	if err != nil {
		return err
	}
	if p.Config, err = config.Parse(file, []byte(written)); err != nil {
		return err
	}
	p.found("certificate: by ACME from Let's Encrypt, to whose terms you agree by this; %s", way.why)
	p.webroot(way.webroot) // before the settings, which a later run goes by
	p.add(settingsFile, func(context.Context) error {
		if err := p.makeFolder(filepath.Dir(settingsFile), folderMode); err != nil {
			return err
		}
		return domains.WriteFile(file, []byte(written), domains.NewFile)
	})
	return nil
}

// agrees reports flags that the settings speak against.
func (p *Plan) agrees() error {
	if p.opt.Hostname != "" && !strings.EqualFold(strings.TrimSuffix(p.opt.Hostname, "."), p.Config.Hostname) {
		return fmt.Errorf("%s says hostname = %q; change it there if it is to be %s", settingsFile, p.Config.Hostname, p.opt.Hostname)
	}
	if p.opt.Webroot != "" {
		return fmt.Errorf("--webroot is for a first setup; %s is there already: write it under [acme] there", settingsFile)
	}
	p.found("hostname: %s, by %s", p.Config.Hostname, settingsFile)
	return nil
}

// forward is where mail goes. It is asked for once.
func (p *Plan) forward() (address.Address, error) {
	if p.opt.Forward == "" {
		answer, err := p.opt.Ask(Question{Text: "The mailbox that mail for " + p.Domain + " is forwarded to, like you@gmail.com", Flag: "forward"})
		if err != nil {
			return address.Address{}, err
		}
		p.opt.Forward = strings.TrimSpace(answer)
	}
	to, err := address.Parse(p.opt.Forward)
	if err == nil && to.Domain == p.Domain {
		err = fmt.Errorf("%s is an address of the domain itself: mail would go in a circle", to)
	}
	if err != nil {
		return to, fmt.Errorf("--forward: %w", err)
	}
	return to, nil
}
