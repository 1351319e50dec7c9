package setup

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"relayd/etc"
)

// writeUnit writes the unit for the program as it is installed.
func (p *Plan) writeUnit(file string) error {
	text := strings.Replace(etc.Unit, "ExecStart="+binDir+"/relayd ", "ExecStart="+p.relayd+" ", 1)
	return makeFile(p.at(file), text)
}

// start enables and starts the unit where it is not, as it is when all was done before.
func (p *Plan) start(ctx context.Context) error {
	run := p.opt.World.Run
	if errors.Join(run(ctx, "systemctl", "--quiet", "is-enabled", unitName), run(ctx, "systemctl", "--quiet", "is-active", unitName)) == nil {
		return nil
	}
	p.add(unitName+", enabled and started", func(ctx context.Context) error {
		if err := run(ctx, "systemctl", "daemon-reload"); err != nil {
			return err
		}
		if err := run(ctx, "systemctl", "enable", "--now", unitName); err != nil {
			return fmt.Errorf("%w; `journalctl -u relayd` tells why", err)
		}
		return nil
	})
	return nil
}

// StartCommand is how relayd is started by hand, where no systemd does it: with the right to listen on
// ports below 1024 and no other.
func (p *Plan) StartCommand() string {
	return fmt.Sprintf("setpriv --reuid %s --regid %[1]s --init-groups --inh-caps -all,+net_bind_service --ambient-caps -all,+net_bind_service %s -c %s",
		account, p.relayd, settingsFile)
}

// webroot lets relayd, and nobody else, write the files that prove the name.
func (p *Plan) webroot(dir string) {
	if dir == "" {
		return
	}
	challenges := filepath.Join(dir, ".well-known/acme-challenge")
	if !exists(p.at(challenges)) {
		p.add(challenges+"/, where relayd proves the name", func(context.Context) error {
			return p.makeFolder(challenges, 0o755) // the web server must be able to enter it
		})
	}
	dropIn := filepath.Join(unitDirs[0], unitName+".d", "webroot.conf")
	if (p.opt.World.Booted || p.image()) && !exists(p.at(dropIn)) {
		p.add(dropIn, func(context.Context) error {
			return makeFile(p.at(dropIn), "[Service]\nReadWritePaths=-"+challenges+"\n")
		})
	}
}
