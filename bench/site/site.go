// Package site is a relayd to be measured: built from this tree, in a folder of its own, with one
// domain whose catch-all leads out through a smarthost.
package site

import (
	"bufio"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// A Site is a folder with relayd, relay-util and their files.
type Site struct {
	Dir      string
	programs string // the folder that the programs are in
	state    string
	within   string // how long a sender waits for the destination's answer
}

// Furnish builds the programs into dir and writes their files beside them.
func Furnish(dir, smarthost string) (*Site, error) {
	s := &Site{Dir: dir, programs: dir, state: filepath.Join(dir, "state"), within: "0s"}
	if err := s.write(smarthost); err != nil {
		return nil, err
	}
	build := exec.Command("go", "build", "-o", dir+"/", "./cmd/relayd", "./cmd/relay-util")
	build.Stderr = os.Stderr
	return s, build.Run()
}

// Beside is another site with the same programs: its files are in dir, its state folder is state.
func (s *Site) Beside(dir, state, smarthost string) (*Site, error) {
	other := &Site{Dir: dir, programs: s.programs, state: state, within: s.within}
	return other, other.write(smarthost)
}

// AnswerWithin has senders wait so long for the destination's answer; smarthost is as for Furnish.
// Until then none waits, for what is mostly measured is the queue.
func (s *Site) AnswerWithin(within, smarthost string) error {
	s.within = within
	return s.write(smarthost)
}

// write makes the files of a site. Without a smarthost its mail goes to mail exchangers.
func (s *Site) write(smarthost string) error {
	conf := fmt.Sprintf("hostname = \"mx.example.test\"\nstate_dir = %q\n[listen]\nsmtp = [\"127.0.0.1:0\"]\nsubmission = []\nsubmissions = []\n[limits]\ncatchall_addresses = 0\n[forward]\nanswer_within = %q\n", s.state, s.within)
	if smarthost != "" {
		conf += fmt.Sprintf("[outbound]\nsmarthost = \"smtp://%s\"\n", smarthost)
	}
	return errors.Join(s.Write("relayd.toml", conf), s.Write("domains/example.test/aliases", "*: me@healthy.test\n"),
		s.Write("domains/example.test/domain.toml", "dmarc = \"off\"\n")) // no DNS is measured, nor needed
}

// Write makes or replaces one of the site's files. A daemon that runs may take seconds to see it.
func (s *Site) Write(name, text string) error {
	file := filepath.Join(s.Dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(text), 0o644)
}

// StateDir is the state folder of the relay.
func (s *Site) StateDir() string { return s.state }

// Config is its settings file.
func (s *Site) Config() string { return filepath.Join(s.Dir, "relayd.toml") }

// A Daemon is a running relayd.
type Daemon struct {
	Addr  string            // where it takes mail from the world
	Addrs map[string]string // where each service listens, by its name in the log
	cmd   *exec.Cmd
}

// Start starts relayd and returns when it listens. Panics and errors that it logs are logged here.
func (s *Site) Start() (*Daemon, error) {
	d := &Daemon{Addrs: map[string]string{}, cmd: exec.Command(filepath.Join(s.programs, "relayd"), "-c", s.Config())}
	out, err := d.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for up := false; !up && lines.Scan(); {
		if _, l, ok := strings.Cut(lines.Text(), " msg=listening service="); ok {
			name, addr, _ := strings.Cut(l, " address=")
			d.Addrs[name] = addr
		}
		up = strings.Contains(lines.Text(), `msg="relayd is up"`)
	}
	d.Addr = d.Addrs["smtp"]
	if d.Addr == "" {
		d.Kill()
		return nil, errors.New("relayd does not come up")
	}
	go func() {
		for lines.Scan() { // so that the daemon never waits for us
			if strings.Contains(lines.Text(), "panic") || strings.Contains(lines.Text(), "level=ERROR") {
				log.Print(lines.Text())
			}
		}
	}()
	return d, nil
}

// PID is the process ID of the daemon.
func (d *Daemon) PID() int { return d.cmd.Process.Pid }

// Kill ends it with SIGKILL.
func (d *Daemon) Kill() {
	d.cmd.Process.Kill()
	d.cmd.Wait()
}

// Stop asks it to end in order, and waits until it has.
func (d *Daemon) Stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return d.cmd.Wait()
}
