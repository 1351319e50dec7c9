//go:build interop

package interop

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A booted is a bare Debian whose first process is systemd.
type booted struct {
	*bare
	leader string // process ID of its systemd, as seen from here
}

// boot starts the machine in a container of systemd-nspawn. The container has a mount of the cgroups of its
// own, for those of the host may be of the old kind.
func boot(t *testing.T, b *bare) *booted {
	t.Helper()
	const start = `mount -t cgroup2 cgroup2 /sys/fs/cgroup && mkdir "/sys/fs/cgroup/$0" || exit
sh -c 'echo $$ >"/sys/fs/cgroup/$0/cgroup.procs" && echo $$ >"$1" && shift && exec "$@"' "$0" "$@"
find "/sys/fs/cgroup/$0" -depth -type d -exec rmdir {} \;`
	m := &booted{bare: b}
	pid, log := b.files.path("nspawn.pid"), newLogbook()
	cmd := exec.Command(peer(t, "unshare"), "--mount", "/bin/sh", "-c", start, b.relay.name, pid, peer(t, "systemd-nspawn"), "--quiet", "--boot",
		"--directory="+b.root, "--machine="+b.relay.name, "--register=no", "--keep-unit", "--link-journal=no", "--network-namespace-path=/run/netns/"+b.relay.name,
		"--console=pipe", "--resolv-conf=off", "--timezone=off")
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = log, log, 5*time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // its console tells
	}()
	t.Cleanup(func() {
		_ = m.inside("systemctl poweroff").Run() // it may have ended in the middle of it
		select {
		case <-done:
		case <-time.After(patience):
			t.Errorf("the machine does not go down:\n%s", log.tail(20))
			m.kill(pid)
			<-done
		}
	})
	waitFor(t, "systemd has started everything", patience, func() bool {
		number, _ := os.ReadFile(pid) // is not there at once
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%s/task/%[1]s/children", strings.TrimSpace(string(number))))
		if m.leader, _, _ = strings.Cut(string(children), " "); m.leader == "" {
			return false
		}
		state, _ := m.inside("systemctl is-system-running").Output()
		return strings.TrimSpace(string(state)) == "running" || strings.TrimSpace(string(state)) == "degraded"
	})
	return m
}

// kill ends systemd-nspawn, and with it all that runs in the container.
func (m *booted) kill(pidFile string) {
	var pid int
	if _, err := fmt.Sscan(string(readFile(m.t, pidFile)), &pid); err == nil {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// inside is a shell command on the machine.
func (m *booted) inside(command string) *exec.Cmd {
	return exec.Command(peer(m.t, "nsenter"), "-t", m.leader, "-a", "env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "LC_ALL=C", "SYSTEMD_PAGER=", "sh", "-c", command)
}

// run runs a command on the machine, which must not fail.
func (m *booted) run(command string) string {
	m.t.Helper()
	out, err := m.inside(command).CombinedOutput()
	if err != nil {
		journal, _ := m.inside("journalctl -n 20").Output()
		m.t.Fatalf("%s: %v\n%s\nthe journal:\n%s", command, err, out, journal)
	}
	return string(out)
}

// property is what systemd says of relayd.
func (m *booted) property(name string) string {
	m.t.Helper()
	return strings.TrimSpace(m.run("systemctl show --value -p " + name + " relayd"))
}

// edit changes the settings on the machine.
func (m *booted) edit(old, new string) {
	m.t.Helper()
	file := filepath.Join(m.root, "etc/relayd/relayd.toml")
	text := string(readFile(m.t, file))
	if !strings.Contains(text, old) {
		m.t.Fatalf("%q is not in relayd.toml", old)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(text, old, new, 1)), 0o640); err != nil {
		m.t.Fatal(err)
	}
}

// TestBoot: relayd's life under a systemd that runs the machine: set up, mail by the network and by
// sendmail, reload, restart, hang, wrong settings, uninstall. It makes a Debian, so it is one of
// the long tests.
func TestBoot(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command(peer(t, "debootstrap"), "--variant=minbase", "--include=systemd,systemd-sysv,dbus", "bookworm", dir).CombinedOutput(); err != nil {
		t.Fatalf("debootstrap: %v\n%s", err, out)
	}
	b := newBare(t, dir)
	b.write("/etc/hostname", "mx\n", 0o644)
	for _, name := range []string{"relayd", "relay-util"} {
		b.write("/usr/local/bin/"+name, string(readFile(t, program(t, name))), 0o755)
	}
	m := boot(t, b)

	first := m.run("relay-util setup example.test --forward me@gmail.test")
	found := passwordLine.FindStringSubmatch(first)
	if found == nil || !strings.Contains(first, "made   relayd.service, enabled and started") || strings.Contains(first, "not a directory") {
		t.Fatalf("setup:\n%s", first)
	}
	m.addCertificate()
	b.zones["example.test"] += m.run("relay-util dns example.test --zone")
	b.publish()
	m.run("systemctl reload relayd")
	m.mail(found[1])
	m.journal()
	m.sendmail()
	m.restarts()
	m.hangs()
	m.wrongSettings()
	m.gone()
}

// journal: no line has a time of its own, levels are known, and trace finds what it needs.
func (m *booted) journal() {
	m.t.Helper()
	if all := m.run("journalctl -u relayd"); strings.Contains(all, "time=") || !strings.Contains(all, "level=INFO") {
		m.t.Errorf("the journal:\n%s", all)
	}
	if bad := m.run("journalctl -u relayd -p warning"); strings.Contains(bad, "level=INFO") || !strings.Contains(bad, "level=WARN") {
		m.t.Errorf("warnings in the journal:\n%s", bad)
	}
	if traced := m.run("relay-util trace hello@example.test"); !strings.Contains(traced, "from <friend@gmail.test> to <hello@example.test>") {
		m.t.Errorf("traced:\n%s", traced)
	}
}

// sendmail: an ordinary user's mail goes out, also what was written while relayd was down.
func (m *booted) sendmail() {
	m.t.Helper()
	m.run("useradd -m joe")
	m.edit(`#domain = ""`, `domain = "example.test"`)
	const send = `printf 'Subject: local\nTo: friend@gmail.test\n\nHello.\n' | setpriv --reuid joe --regid joe --init-groups relay-util sendmail -t`
	m.run("systemctl restart relayd && " + send)
	if out, err := m.inside("setpriv --reuid joe --regid joe --init-groups relay-util status").CombinedOutput(); err == nil || !strings.Contains(string(out), "try sudo") {
		m.t.Errorf("an ordinary user sees the status: %v\n%s", err, out)
	}
	m.run("systemctl stop relayd && " + send + " && systemctl start relayd")
	arrived(m.t, m.gmail, 4)
}

// restarts: with the socket units no connection is refused while relayd is restarted.
func (m *booted) restarts() {
	m.t.Helper()
	units, err := filepath.Glob(filepath.Join(root, "etc/relayd-*.socket"))
	if err != nil || len(units) != 3 {
		m.t.Fatalf("units %v, %v", units, err)
	}
	names := ""
	for _, unit := range units {
		m.write("/etc/systemd/system/"+filepath.Base(unit), string(readFile(m.t, unit)), 0o644)
		names += " " + filepath.Base(unit)
	}
	m.run(`sed -Ei 's/^#(smtp|submission|submissions) = .*/\1 = ["systemd:\1"]/' /etc/relayd/relayd.toml`)
	m.run("systemctl daemon-reload && systemctl stop relayd && systemctl enable --now" + names + " && systemctl start relayd")

	stop, greeted, refused := make(chan struct{}), atomic.Int64{}, atomic.Int64{}
	var stream sync.WaitGroup
	for range 4 {
		stream.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(10 * time.Millisecond):
				}
				if err := m.greeting(); err != nil {
					refused.Add(1)
					m.t.Log(err)
				} else {
					greeted.Add(1)
				}
			}
		})
	}
	for range 5 {
		before := greeted.Load()
		m.run("systemctl restart relayd")
		waitFor(m.t, "connections after a restart", patience, func() bool { return greeted.Load() > before+20 })
	}
	close(stop)
	stream.Wait()
	m.t.Logf("%d connections over 5 restarts, of which %d failed", greeted.Load()+refused.Load(), refused.Load())
	if refused.Load() > 0 {
		m.t.Error("connections were lost")
	}
}

// greeting connects, and wants to be greeted.
func (m *booted) greeting() error {
	conn, err := m.files.ns.tryDial(bareIP + ":25")
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "220 ") {
		err = fmt.Errorf("greeted by %q", line)
	}
	if err == nil {
		_, err = conn.Write([]byte("QUIT\r\n"))
	}
	return err
}

// hangs: one that gives no sign of life is killed and started anew.
func (m *booted) hangs() {
	m.t.Helper()
	m.write("/etc/systemd/system/relayd.service.d/test.conf", "[Service]\nWatchdogSec=15s\nRestartSec=1s\n", 0o644)
	m.run("systemctl daemon-reload && systemctl restart relayd")
	before := m.property("MainPID")
	m.run("kill -STOP " + before)
	waitFor(m.t, "relayd is started anew", patience, func() bool {
		return m.property("SubState") == "running" && m.property("MainPID") != before
	})
	if got := m.property("NRestarts"); got != "1" {
		m.t.Errorf("it was started %s times", got)
	}
}

// wrongSettings: systemd does not try for ever what cannot work.
func (m *booted) wrongSettings() {
	m.t.Helper()
	m.edit("\n[limits]\n", "\n[limits]\nnonsense = 1\n")
	if out, err := m.inside("systemctl restart relayd").CombinedOutput(); err == nil {
		m.t.Errorf("it starts with a wrong setting:\n%s", out)
	}
	time.Sleep(3 * time.Second) // thrice RestartSec
	if state, code, n := m.property("ActiveState"), m.property("ExecMainStatus"), m.property("NRestarts"); state != "failed" || code != "78" || n != "0" {
		m.t.Errorf("%s with %s, started %s times more", state, code, n)
	}
	waitFor(m.t, "systemd gives the ports up", patience, func() bool { // every connection is another try
		conn, err := m.files.ns.tryDial(bareIP + ":25")
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	m.edit("\nnonsense = 1\n", "\n")
	m.run("systemctl reset-failed relayd && systemctl start relayd")
	if err := m.greeting(); err != nil {
		m.t.Error(err)
	}
}

// gone: nothing is left of an uninstalled relayd but its programs, and nobody listens.
func (m *booted) gone() {
	m.t.Helper()
	m.run("relay-util uninstall --yes --purge")
	if state := m.property("LoadState"); state != "not-found" {
		m.t.Errorf("systemd says that relayd is %s", state)
	}
	if left := m.run("find /etc /var/lib /run/systemd -name '*relayd*' 2>/dev/null"); strings.TrimSpace(left) != "" {
		m.t.Errorf("left is:\n%s", left)
	}
	for _, port := range []int{25, 465, 587} {
		if conn, err := m.files.ns.tryDial(fmt.Sprintf("%s:%d", bareIP, port)); err == nil {
			conn.Close()
			m.t.Errorf("somebody listens on port %d", port)
		}
	}
	if failed := m.run("systemctl list-units --failed --plain --no-legend"); strings.Contains(failed, "relayd") {
		m.t.Errorf("failed:\n%s", failed)
	}
}
