package setup

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// removal is one on this machine, with messages in the queue.
func (s *server) removal(messages int, running bool, opt RemovalOptions) *Removal {
	opt.Root, opt.World = s.opt.Root, s.opt.World
	opt.Waiting = func(context.Context) (int, bool, error) { return messages, running, nil }
	return NewRemoval(opt)
}

func TestRemoval(t *testing.T) {
	s := newServer(t, true).withDomain()
	s.setUp()
	s.write("/var/lib/relayd/queue/000001.log", "mail")
	kept := s.tree()
	r := s.removal(3, true, RemovalOptions{})
	if err := r.Run(context.Background(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(s.ran, "systemctl disable --now relayd.service") {
		t.Errorf("%q", s.ran)
	}
	for path := range kept {
		if gone := !exists(path); gone != (filepath.Base(path) == "relayd.service") {
			t.Errorf("%s: gone %v", path, gone)
		}
	}
	stays := strings.Join(r.Stays, "\n")
	for _, want := range []string{"/etc/relayd, ", "/var/lib/relayd, the queue", "/usr/local/bin/relayd, rm ", "userdel relayd"} {
		if !strings.Contains(stays, want) {
			t.Errorf("%q is not said to stay:\n%s", want, stays)
		}
	}
}

// TestRemovalOfSockets: systemd would hold the ports on, and start relayd at the next connection.
func TestRemovalOfSockets(t *testing.T) {
	s := newServer(t, true).withDomain()
	s.setUp()
	for _, name := range []string{"/etc/systemd/system/relayd-smtp.socket", "/lib/systemd/system/relayd-submission.socket"} {
		s.write(name, "")
	}
	s.ran = nil
	if err := s.removal(0, false, RemovalOptions{}).Run(context.Background(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"systemctl disable --now relayd-smtp.socket relayd-submission.socket relayd.service", "systemctl daemon-reload"}; !slices.Equal(s.ran, want) {
		t.Errorf("%q, want %q", s.ran, want)
	}
	if exists(filepath.Join(s.opt.Root, "/etc/systemd/system/relayd-smtp.socket")) || !exists(filepath.Join(s.opt.Root, "/lib/systemd/system/relayd-submission.socket")) {
		t.Error("what the admin added stays, or what the package brought goes")
	}
}

// Mail is never removed unless somebody says so.
func TestPurge(t *testing.T) {
	s := newServer(t, true).withDomain()
	s.setUp()
	before := s.tree()
	s.ran = nil
	for name, r := range map[string]*Removal{
		"mail waits":            s.removal(3, true, RemovalOptions{Purge: true}),
		"the same, relayd down": s.removal(1, false, RemovalOptions{Purge: true}),
	} {
		if err := r.Run(context.Background(), func(string) {}); err == nil || !strings.Contains(err.Error(), "would be lost") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(s.ran) != 0 {
		t.Errorf("%q", s.ran)
	}
	s.same(before)
	if err := s.removal(0, true, RemovalOptions{Purge: true}).Run(context.Background(), func(string) {}); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Errorf("beside a relayd that runs: %v", err)
	}
	if !exists(filepath.Join(s.opt.Root, settingsFile)) {
		t.Fatal("the settings are gone")
	}
	if err := s.removal(3, false, RemovalOptions{Purge: true, DiscardMail: true}).Run(context.Background(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(s.opt.Root, "/etc/relayd")) || exists(filepath.Join(s.opt.Root, "/var/lib/relayd")) {
		t.Error("something is left")
	}
	if steps := s.removal(0, false, RemovalOptions{Purge: true}).Steps(); slices.Contains(steps, "the mail in the queue") {
		t.Errorf("there is no queue, but %q would go", steps)
	}
}

// A folder of state that was chosen by hand may hold other things.
func TestPurgeLeavesAnotherStateFolder(t *testing.T) {
	s := newServer(t, false)
	s.write(settingsFile, "state_dir = \"/srv/state\"\n")
	s.write("/srv/state/other", "")
	r := s.removal(0, false, RemovalOptions{Purge: true})
	if err := r.Run(context.Background(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	if !exists(filepath.Join(s.opt.Root, "/srv/state/other")) || !strings.Contains(strings.Join(r.Stays, "\n"), "/srv/state, not the usual place") {
		t.Errorf("%q", r.Stays)
	}
}

// TestPurgeFollowsNoLink: what somebody has linked to is not the relay's.
func TestPurgeFollowsNoLink(t *testing.T) {
	s := newServer(t, true).withDomain()
	s.setUp()
	s.write("/outside/precious", "x")
	for _, link := range []string{"/var/lib/relayd/link", "/var/lib/relayd/queue", "/etc/relayd/link", "/etc/relayd/domains/b.example"} {
		if err := os.Symlink(filepath.Join(s.opt.Root, "outside"), filepath.Join(s.opt.Root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.removal(0, false, RemovalOptions{Purge: true}).Run(context.Background(), func(string) {}); err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(s.opt.Root, "var/lib/relayd")) || exists(filepath.Join(s.opt.Root, "etc/relayd")) || s.read("/outside/precious") != "x" {
		t.Errorf("%v", s.tree())
	}
}
