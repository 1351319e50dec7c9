package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"relayd/config"
)

// usualState is the only state folder that is removed: another one may be shared.
var usualState = config.Default().StateDir

// RemovalOptions say what of an installation is to go.
type RemovalOptions struct {
	Root        string // as in Options
	Purge       bool   // the settings, users, keys and the queue, too
	DiscardMail bool   // though mail waits in the queue
	World       World  // of which Booted and Run are used
	// Waiting counts the messages in the queue, and says whether a relayd runs.
	Waiting func(context.Context) (messages int, running bool, err error)
}

// A Removal is what goes, and what stays.
type Removal struct {
	Stays []string
	opt   RemovalOptions
	steps []step
}

// NewRemoval finds out what is there.
func NewRemoval(opt RemovalOptions) *Removal {
	r := &Removal{opt: opt}
	var units []string
	for _, name := range append(sockets, unitName) {
		if unit(opt.Root, name) != "" {
			units = append(units, name)
		}
	}
	if len(units) > 0 && opt.World.Booted {
		r.add(strings.Join(units, ", ")+", stopped and disabled", func(ctx context.Context) error {
			return opt.World.Run(ctx, "systemctl", append([]string{"disable", "--now"}, units...)...)
		})
	}
	if opt.Purge && exists(r.at(config.StateDir(r.at(settingsFile)))) {
		r.add("the mail in the queue", r.emptied)
	}
	for _, file := range []string{wanted, filepath.Join(unitDirs[0], unitName+".d")} {
		r.remove(file)
	}
	for _, name := range units {
		r.remove(filepath.Join(unitDirs[0], name))
	}
	if len(units) > 0 && opt.World.Booted {
		r.add("what systemd remembers of it", func(ctx context.Context) error { return opt.World.Run(ctx, "systemctl", "daemon-reload") })
	}
	if file := unit(opt.Root, unitName); file != "" && filepath.Dir(file) != unitDirs[0] {
		r.Stays = append(r.Stays, file+", of a package: apt remove relayd")
	}
	r.folders()
	for _, name := range []string{"relayd", "relay-util"} {
		r.stays(filepath.Join(binDir, name), "rm "+filepath.Join(binDir, name))
	}
	p := Plan{opt: Options{Root: opt.Root}}
	if _, _, err := p.ids(); err == nil {
		r.Stays = append(r.Stays, "user and group "+account+", userdel "+account)
	}
	return r
}

// folders goes through those of the settings and the state.
func (r *Removal) folders() {
	dir, state := filepath.Dir(settingsFile), config.StateDir(r.at(settingsFile))
	if !r.opt.Purge {
		r.stays(dir, "settings, users, aliases, keys and certificates: --purge")
		r.stays(state, "the queue with the mail in it, and the secret of return addresses: --purge")
		return
	}
	if state == usualState {
		r.remove(state)
	} else {
		r.stays(state, "not the usual place, so look into it yourself: rm -r "+state)
	}
	r.remove(dir)
}

func (r *Removal) at(path string) string { return filepath.Join(r.opt.Root, path) }

func (r *Removal) add(what string, do func(context.Context) error) {
	r.steps = append(r.steps, step{what, do})
}

func (r *Removal) remove(path string) {
	if exists(r.at(path)) {
		r.add(path, func(context.Context) error { return os.RemoveAll(r.at(path)) })
	}
}

func (r *Removal) stays(path, why string) {
	if exists(r.at(path)) {
		r.Stays = append(r.Stays, path+", "+why)
	}
}

// Steps are what goes, in order.
func (r *Removal) Steps() []string {
	list := []string{}
	for _, s := range r.steps {
		list = append(list, s.what)
	}
	return list
}

// Run removes it, and tells done of each thing that is gone. Where mail would be lost that nobody has
// said may be lost, it is an error before anything is stopped.
func (r *Removal) Run(ctx context.Context, done func(what string)) error {
	if r.opt.Purge {
		if err := r.mayGo(ctx); err != nil {
			return err
		}
	}
	for _, s := range r.steps {
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.what, err)
		}
		done(s.what)
	}
	return nil
}

// mayGo is an error if mail waits that is to be kept.
func (r *Removal) mayGo(ctx context.Context) error {
	n, _, err := r.opt.Waiting(ctx)
	switch {
	case r.opt.DiscardMail:
		return nil
	case err != nil:
		return fmt.Errorf("nobody can say whether mail waits in the queue: %w; --discard-mail removes it unseen", err)
	case n > 0:
		return fmt.Errorf("messages that wait in the queue and would be lost: %d; save them with `relay-util queue-export --all DIR` "+
			"while relayd runs, or add --discard-mail", n)
	}
	return nil
}

// emptied makes sure of it again when nothing new can come.
func (r *Removal) emptied(ctx context.Context) error {
	_, running, _ := r.opt.Waiting(ctx) // mayGo tells of its error
	if running {
		return errors.New("relayd still runs: stop it first")
	}
	return r.mayGo(ctx)
}
