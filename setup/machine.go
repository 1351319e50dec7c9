package setup

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"relayd/domains"
)

// binDirs is where programs are that the system finds.
var binDirs = []string{binDir, "/usr/bin", "/usr/local/sbin", "/usr/sbin"}

// programs copies those that are not installed.
func (p *Plan) programs(context.Context) error {
	var missing []string
	for _, name := range []string{"relayd", "relay-util"} {
		place := p.installed(name)
		if name == "relayd" {
			p.relayd = place
		}
		if place != "" {
			continue
		}
		if !exists(filepath.Join(p.opt.Programs, name)) {
			return fmt.Errorf("%s is neither in %s nor beside this program, in %s: build both with `go build -o %s/ ./cmd/relayd ./cmd/relay-util`",
				name, binDir, p.opt.Programs, binDir)
		}
		missing = append(missing, name)
	}
	if p.relayd == "" {
		p.relayd = filepath.Join(binDir, "relayd")
	}
	for _, name := range missing {
		from, to := filepath.Join(p.opt.Programs, name), filepath.Join(binDir, name)
		p.add(fmt.Sprintf("%s, copied from %s", to, p.opt.Programs), func(context.Context) error { return copyProgram(from, p.at(to)) })
	}
	return nil
}

// installed is where a program is, or "".
func (p *Plan) installed(name string) string {
	for _, dir := range binDirs {
		if exists(p.at(filepath.Join(dir, name))) {
			return filepath.Join(dir, name)
		}
	}
	return ""
}

// copyProgram copies under another name first: a half copy is never started.
func copyProgram(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name()) // gone after the rename
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Chmod(0o755), out.Sync(), out.Close()); err != nil {
		return err
	}
	return os.Rename(out.Name(), to)
}

// account makes the system user that relayd runs as, with a group of the same name.
func (p *Plan) account(context.Context) error {
	if _, _, err := p.ids(); err == nil {
		return nil
	}
	args := []string{"--system", "--user-group", "--home-dir", "/var/lib/relayd", "--no-create-home", "--shell", "/usr/sbin/nologin"}
	if !p.here() {
		args = append(args, "--prefix", p.opt.Root)
	}
	p.add("user and group "+account, func(ctx context.Context) error {
		return p.opt.World.Run(ctx, "useradd", append(args, account)...)
	})
	return nil
}

// ids are the numbers of the account. The files are read, and nobody asked, for those of an image
// are not those of this machine.
func (p *Plan) ids() (uid, gid int, err error) {
	for _, file := range []string{"/etc/passwd", "/etc/group"} {
		f, err := os.Open(p.at(file))
		if err != nil {
			return 0, 0, err
		}
		id, err := idOf(account, f)
		f.Close()
		if err != nil {
			return 0, 0, fmt.Errorf("%s: %w", file, err)
		}
		uid, gid = gid, id // that of the user comes first
	}
	return uid, gid, nil
}

// idOf finds the third field of the line whose first is name, in a file like passwd(5) or group(5).
func idOf(name string, r io.Reader) (int, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if fields := strings.Split(lines.Text(), ":"); len(fields) > 2 && fields[0] == name {
			return strconv.Atoi(fields[2])
		}
	}
	return 0, errors.Join(fmt.Errorf("there is no %s", name), lines.Err())
}

// folderMode is for the account, and for its group to look.
const folderMode fs.FileMode = 0o750

// folders makes those of the settings and the state.
func (p *Plan) folders(context.Context) error {
	for _, dir := range []string{"/etc/relayd/domains", "/etc/relayd/certs", p.Config.StateDir} {
		if !exists(p.at(dir)) {
			p.add(dir+"/", func(context.Context) error { return p.makeFolder(dir, folderMode) })
		}
	}
	return nil
}

// makeFolder makes a folder of the account's where there is none, in one step.
func (p *Plan) makeFolder(dir string, mode fs.FileMode) error {
	path := p.at(dir)
	if exists(path) {
		return nil
	}
	uid, gid, err := p.ids()
	if err != nil {
		return err
	}
	around := filepath.Dir(path)
	if err := os.MkdirAll(around, 0o755); err != nil {
		return err
	}
	draft, err := os.MkdirTemp(around, "."+filepath.Base(dir)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(draft) // gone after the rename
	if err := domains.Give(draft, uid, gid, mode); err != nil {
		return err
	}
	return os.Rename(draft, path)
}

// unitDirs are where units are looked for, those of packages last.
var unitDirs = []string{"/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

const unitName = "relayd.service"

// sockets are the units that an admin may have added. A connection to one starts relayd.
var sockets = []string{"relayd-smtp.socket", "relayd-submission.socket", "relayd-submissions.socket"}

// unit is where a unit is, or "".
func unit(root, name string) string {
	for _, dir := range unitDirs {
		if exists(filepath.Join(root, dir, name)) {
			return filepath.Join(dir, name)
		}
	}
	return ""
}

// wanted is the link that has systemd start the unit, which `systemctl enable` makes, too.
const wanted = "/etc/systemd/system/multi-user.target.wants/" + unitName

// image reports whether the machine is one that systemd will run when it is started.
func (p *Plan) image() bool {
	return !p.opt.World.Booted && !p.here() && exists(p.at("/etc/systemd/system"))
}

// systemd installs the unit and has it started. In an image it is started with that.
func (p *Plan) systemd(ctx context.Context) error {
	image := p.image()
	if !p.opt.World.Booted && !image {
		return nil
	}
	file := unit(p.opt.Root, unitName)
	if file == "" {
		file = filepath.Join(unitDirs[0], unitName)
		p.add(file, func(context.Context) error { return p.writeUnit(file) })
	}
	if !image {
		return p.start(ctx)
	}
	if !exists(p.at(wanted)) {
		p.add(wanted, func(context.Context) error { return link(file, p.at(wanted)) })
	}
	return nil
}

func link(to, name string) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.Symlink(to, name)
}

// makeFile writes a file for everybody to read, with the folders around it.
func makeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return domains.WriteFile(path, []byte(text), 0o644)
}

// ownedLike reports whether a file, or the link in its place, belongs to the owner of its folder.
func ownedLike(path string) (bool, error) {
	file, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return false, err
	}
	return file.Sys().(*syscall.Stat_t).Uid == dir.Sys().(*syscall.Stat_t).Uid, nil
}
