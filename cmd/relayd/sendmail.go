package main

import (
	"os"
	"strings"
	"syscall"

	"relayd/config"
	"relayd/domains"
	"relayd/problem"
	"relayd/sendmail"
)

// openDoor lets local users in, if the settings say so.
func (d *daemon) openDoor() (*sendmail.Door, error) {
	if d.conf.Sendmail.Domain == "" {
		return nil, sendmail.Shut(d.conf.StateDir)
	}
	syscall.Umask(0o027) // for others may name the files of the state folder now
	names := machineNames(d.conf)
	return sendmail.Open(sendmail.DoorOptions{
		StateDir: d.conf.StateDir, Inbound: d.inbound, SpoolDir: d.store.TemporaryDir(), MessageSize: int64(d.conf.Limits.MessageSize), Log: d.log,
		Rule: sendmail.Rule{Sendmail: d.conf.Sendmail, Local: func(domain string) bool {
			return names[domain] && d.domains.Current().Get(domain) == nil
		}},
	})
}

// machineNames are the names under which programs of this machine know it, in lower case.
func machineNames(conf *config.Config) map[string]bool {
	names := map[string]bool{"localhost": true, "localhost.localdomain": true, conf.Hostname: true}
	if name, err := os.Hostname(); err == nil {
		names[strings.ToLower(name)] = true
	}
	if text, err := os.ReadFile("/etc/mailname"); err == nil { // Debian's programs write it behind the user's name
		names[strings.ToLower(strings.TrimSpace(string(text)))] = true
	}
	return names
}

// checkSendmail warns of a domain that nothing can be sent from.
func checkSendmail(conf *config.Config, world *domains.Set) problem.List {
	if d := conf.Sendmail.Domain; d != "" && world.Get(d) == nil {
		return problem.List{problem.At(conf.File(), 0, "mail of local users is refused: %s, the domain of [sendmail], is not hosted here", d)}
	}
	return nil
}
