package main

import (
	"log/slog"
	"path/filepath"
	"time"

	"relayd/bans"
	"relayd/config"
	"relayd/control"
)

func newBans(conf *config.Config, log *slog.Logger) *bans.Book {
	file := filepath.Join(conf.StateDir, "bans")
	return bans.Open(bans.Options{
		Now: time.Now, Log: log,
		Load: func() ([]byte, error) { return readState(file) },
		Save: func(data []byte) error { return writeState(file, data) },
	})
}

// Bans implements control.Daemon.
func (d *daemon) Bans(sel control.BanSelection) []control.Ban {
	var list []control.Ban
	for _, b := range d.bans.List() {
		if sel.Match(b.Source, b.Account) {
			list = append(list, shown(b))
		}
	}
	return list
}

// Unban implements control.Daemon.
func (d *daemon) Unban(sel control.BanSelection) []control.Ban {
	var list []control.Ban
	for _, b := range d.bans.Lift(func(b bans.Ban) bool { return sel.Match(b.Source, b.Account) }) {
		list = append(list, shown(b))
		d.log.Warn("a ban was lifted by the admin", "client", b.Source.String(), "user", b.Account)
	}
	return list
}

func shown(b bans.Ban) control.Ban {
	if b.Account != "" {
		return control.Ban{Kind: "account", Name: b.Account, Until: b.Until, Times: b.Times}
	}
	return control.Ban{Kind: "source", Name: bans.Name(b.Source), Until: b.Until, Times: b.Times}
}
