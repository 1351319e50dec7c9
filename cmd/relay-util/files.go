package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"relayd/address"
	"relayd/aliases"
	"relayd/config"
	"relayd/control"
	"relayd/domains"
	"relayd/problem"
)

var errNoSettings = errors.New("there is no settings file")

// A place is what the settings file leads to.
type place struct {
	*config.Config
	folders map[string]string // of the hosted domains, by name
}

// settings reads the settings file.
func (t *tool) settings() (*config.Config, error) {
	if _, err := os.Stat(t.configFile); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf(`%w %s; make it with one line in it, hostname = "mx.example.com" with the name of this server, or name another with -c FILE`,
			errNoSettings, t.configFile)
	}
	return config.Load(t.configFile)
}

// place reads the settings and looks for the domains beside them.
func (t *tool) place() (place, error) {
	cfg, err := t.settings()
	if err != nil {
		return place{}, err
	}
	folders, err := domains.Folders(cfg.DomainsDir())
	return place{cfg, folders}, err
}

// hosted is the name of a hosted domain as Folders has it.
func (p place) hosted(domain string) (string, error) {
	name, err := address.Domain(domain)
	if err != nil {
		return "", err
	}
	if p.folders[name] == "" {
		return "", fmt.Errorf("%s is not hosted here; make it with `relay-util domain-add %[1]s`", name)
	}
	return name, nil
}

// file is the path of a file in the folder of a hosted domain.
func (p place) file(domain, name string) string { return filepath.Join(p.folders[domain], name) }

// only is the hosted domain where there is exactly one.
func (p place) only() (string, error) {
	if len(p.folders) != 1 {
		return "", fmt.Errorf("which domain? %d are hosted here; write NAME@DOMAIN", len(p.folders))
	}
	return slices.Collect(maps.Keys(p.folders))[0], nil
}

// A world is a place whose files are loaded as they stand, whatever a daemon has in force.
type world struct {
	place
	*domains.Set
}

func (t *tool) world() (world, error) {
	p, err := t.place()
	if err != nil {
		return world{}, err
	}
	return world{p, domains.Read(p.Config, p.DomainsDir()).Current()}, nil
}

// chosen are the domains that a list is for: the one that args name, or all.
func (w world) chosen(args []string) ([]*domains.Domain, error) {
	if len(args) == 0 {
		return w.All(), nil
	}
	name, err := w.hosted(args[0])
	if err != nil {
		return nil, err
	}
	return []*domains.Domain{w.Get(name)}, nil
}

// broken is everything that keeps the files of some domains from being used, as an error.
func broken(list []*domains.Domain) error {
	var problems problem.List
	for _, d := range list {
		problems = append(problems, d.Broken...)
	}
	return problems.Err()
}

// judge parses the text that an alias file is to have, or says why it must not. The warnings are
// of targets that lead nowhere.
func (w world) judge(opt aliases.Options, file string, text []byte) (table *aliases.Table, warnings problem.List, err error) {
	table, warnings, err = w.JudgeAliases(opt, file, text)
	if err != nil {
		return nil, nil, refused(err)
	}
	return table, warnings, nil
}

// refused is the error of an edit that would make a file wrong.
func refused(err error) error {
	return fmt.Errorf("nothing was changed, because the file would then be wrong:\n%w", err)
}

// edit changes the users or the aliases of a domain and tells a running daemon.
func (t *tool) edit(p place, domain, name string, f func(old []byte) ([]byte, error)) error {
	file := p.file(domain, name)
	err := domains.Edit(file, domains.NewFile, func(old []byte) ([]byte, error) {
		if old == nil { // there is no file
			if err := p.vanished(domain, name); err != nil {
				return nil, err
			}
		}
		return f(old)
	})
	if err != nil {
		return err
	}
	t.nudge(p, file)
	return nil
}

// vanished is the error of an edit of a file that is gone while its last version is in force.
func (p place) vanished(domain, name string) error {
	return domains.Vanished(p.GoodDir(), domain, p.file(domain, name))
}

// nudge has a running daemon read its files at once. It prints what the daemon has against those
// at path or below. The daemon would also find the change by itself, so nothing fails here.
func (t *tool) nudge(p place, path string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	problems, err := control.NewClient(p.ControlSocket()).Reload(ctx)
	if errors.Is(err, control.ErrNotRunning) {
		return
	}
	if err != nil {
		t.warn("relayd will see the change within 5 seconds, but could not be told at once: %v", err)
		return
	}
	here, _ := filepath.Abs(path)
	for _, found := range problems {
		if file, _ := filepath.Abs(found.File); file == here || strings.HasPrefix(file, here+"/") {
			fmt.Fprintln(t.err, found)
		}
	}
}
