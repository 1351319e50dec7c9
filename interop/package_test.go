//go:build interop

package interop

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"relayd/internal/testnet"
)

// TestPackage: the Debian package through its life on a machine with nothing but Debian's base:
// installed, set up, upgraded, downgraded, removed, purged, and mail is in the queue all the while.
// It makes packages and a Debian, so it is one of the long tests.
func TestPackage(t *testing.T) {
	older, newer := makePackage(t, "1.0.0"), makePackage(t, "2.0.0")
	if again := makePackage(t, "1.0.0"); string(readFile(t, again)) != string(readFile(t, older)) {
		t.Error("the same commit gives another package")
	}
	if out, err := exec.Command(peer(t, "lintian"), "--allow-root", "--fail-on", "error,warning", older).CombinedOutput(); err != nil {
		t.Errorf("lintian: %v\n%s", err, out)
	}

	m := newMachine(t)
	if out := m.dpkg("-i", older); !strings.Contains(out, "relayd is not set up yet") {
		t.Errorf("the installation does not say what is to be done:\n%s", out)
	}
	m.must("test", "-L", "/etc/systemd/system/multi-user.target.wants/relayd.service")
	m.setUp()
	d := m.start("1.0.0")
	c := dial(t, m.address)
	c.say("EHLO client.test", "250 ")
	id := queuedID(t, offer(c, strangersMail("packed", 2000)))
	c.close()

	m.dpkg("-i", newer)
	m.queued(id) // by the daemon of before, which runs on where there is no systemd
	d.stop()
	d = m.start("2.0.0")
	m.queued(id)
	d.stop()

	m.dpkg("-i", older)
	restore := m.makeQueueNewer()
	d = m.launch()
	if code := d.exitCode(); code != 78 || !d.log.has("written by a newer relayd") {
		t.Errorf("with a queue of a newer relayd it exits with %d:\n%s", code, d.log.tail(5))
	}
	restore()
	d = m.start("1.0.0")
	m.queued(id)
	d.stop()

	for _, by := range []string{"sockets.target", "relayd.service"} { // as by systemctl enable
		m.must("mkdir", "-p", "/etc/systemd/system/"+by+".wants")
		m.must("ln", "-s", "/lib/systemd/system/relayd-smtp.socket", "/etc/systemd/system/"+by+".wants/relayd-smtp.socket")
	}
	m.dpkg("-r", "relayd")
	m.must("test", "-e", "/etc/relayd/relayd.toml")
	if out := m.dpkg("-P", "relayd"); !strings.Contains(out, "the queue stays") {
		t.Errorf("the purge does not say what it leaves:\n%s", out)
	}
	m.must("sh", "-c", "test ! -e /etc/relayd && test $(ls /var/lib/relayd) = queue && test -z \"$(find /etc/systemd -name 'relayd*')\"")
	m.dpkg("-i", newer)
	m.setUp()
	m.start("2.0.0")
	m.queued(id)
}

// makePackage builds the package for this machine in a folder of its own and returns its name.
func makePackage(t *testing.T, version string) string {
	t.Helper()
	dir, arch := t.TempDir(), strings.TrimSpace(mustRun(t, exec.Command(peer(t, "dpkg"), "--print-architecture")))
	mustRun(t, exec.Command(filepath.Join(root, "etc/packaging/package"), "-v", version, "-a", arch, "-o", dir))
	return filepath.Join(dir, "relayd_"+version+"_"+arch+".deb")
}

// A machine is a Debian in a folder. Nothing runs in it but what the test starts.
type machine struct {
	testing.TB
	root    string
	address string // where relayd listens, on port 25
	names   *testnet.DNS
}

func newMachine(t testing.TB) *machine {
	t.Helper()
	m := &machine{TB: t, root: filepath.Join(t.TempDir(), "debian"), names: testnet.NewDNS(t, zones)}
	m.address = fmt.Sprintf("127.77.%d.%d:25", os.Getpid()>>8&255, os.Getpid()&255)
	mustRun(t, exec.Command(peer(t, "debootstrap"), "--variant=minbase", "--include=adduser,init-system-helpers", "bookworm", m.root))
	if err := os.WriteFile(filepath.Join(m.root, "usr/sbin/policy-rc.d"), []byte("#!/bin/sh\nexit 101\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return m
}

// in is a program that runs on the machine.
func (m *machine) in(args ...string) *exec.Cmd {
	cmd := exec.Command(peer(m, "chroot"), append([]string{m.root}, args...)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C"}
	return cmd
}

// must runs a program that must not fail, and returns all that it says.
func (m *machine) must(args ...string) string {
	m.Helper()
	out, err := m.in(args...).CombinedOutput()
	if err != nil {
		m.Fatalf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

// dpkg runs dpkg with a package of this machine's, or a name.
func (m *machine) dpkg(option, name string) string {
	m.Helper()
	if option == "-i" {
		inside := "/" + filepath.Base(name)
		if err := os.WriteFile(m.root+inside, readFile(m, name), 0o644); err != nil {
			m.Fatal(err)
		}
		name = inside
	}
	return m.must("dpkg", option, name)
}

// setUp does what README.Debian and README.md say. Mail stays in the queue, for nobody listens where
// it should go.
func (m *machine) setUp() {
	m.Helper()
	m.must("install", "-o", "relayd", "-g", "relayd", "-m", "0640", "/usr/share/doc/relayd/examples/relayd.toml", "/etc/relayd/relayd.toml")
	file := filepath.Join(m.root, "etc/relayd/relayd.toml")
	text := regexp.MustCompile(`(?m)^hostname = .*`).ReplaceAllString(string(readFile(m, file)), `hostname = "mx.example.test"`)
	for key, value := range map[string]string{
		"smtp": fmt.Sprintf("[%q]", m.address), "submission": "[]", "submissions": "[]", "answer_within": `"0s"`, "servers": fmt.Sprintf("[%q]", m.names.Addr()),
		"port": fmt.Sprint(testnet.LocalPort(m)),
	} {
		text = regexp.MustCompile(`(?m)^#`+key+` = .*`).ReplaceAllLiteralString(text, key+" = "+value)
	}
	if err := os.WriteFile(file, []byte(text), 0o640); err != nil {
		m.Fatal(err)
	}
	m.must("relay-util", "domain-add", "example.test", "--forward", "you@mailbox.test")
	m.must("relayd", "-check")
}

// launch runs what the unit says, as its user and with its one capability.
func (m *machine) launch() *daemon {
	m.Helper()
	unit := string(readFile(m, filepath.Join(m.root, "lib/systemd/system/relayd.service")))
	value := func(key string) string {
		found := regexp.MustCompile(`(?m)^` + key + `=(.*)`).FindStringSubmatch(unit)
		if found == nil {
			m.Fatalf("the unit has no %s", key)
		}
		return found[1]
	}
	capability := strings.ToLower(strings.TrimPrefix(value("AmbientCapabilities"), "CAP_"))
	args := []string{"setpriv", "--reuid", value("User"), "--regid", value("Group"), "--clear-groups", "--no-new-privs",
		"--inh-caps", "-all,+" + capability, "--ambient-caps", "-all,+" + capability, "--bounding-set", "-all,+" + capability}
	return (&site{t: m}).launch(m.in(append(args, strings.Fields(value("ExecStart"))...)...))
}

// start launches what must come up and be of a version.
func (m *machine) start(version string) *daemon {
	m.Helper()
	d := m.launch()
	d.log.await(m, "relayd is up", func(l logLine) bool {
		return strings.Contains(l.text("msg"), `msg="relayd is up" version="`+version+" ")
	}, d.done)
	return d
}

// queued fails unless the message is in the queue.
func (m *machine) queued(id string) {
	m.Helper()
	if out := m.must("relay-util", "queue-list", "--json"); !strings.Contains(out, id) {
		m.Errorf("%s is not in the queue:\n%s", id, out)
	}
}

// makeQueueNewer makes the queue one of a version that is yet to come, until restore is called.
func (m *machine) makeQueueNewer() (restore func()) {
	m.Helper()
	segments, err := filepath.Glob(filepath.Join(m.root, "var/lib/relayd/queue/log/*.log"))
	if err != nil || len(segments) == 0 {
		m.Fatalf("segments %v, %v", segments, err)
	}
	name := segments[len(segments)-1]
	before := readFile(m, name)[:16]
	after := append(append([]byte{}, before[:7]...), 255)
	after = append(after, before[8:12]...)
	after = binary.LittleEndian.AppendUint32(after, crc32.Checksum(after, crc32.MakeTable(crc32.Castagnoli)))
	m.overwrite(name, after)
	return func() { m.overwrite(name, before) }
}

// overwrite writes over the beginning of a file.
func (m *machine) overwrite(name string, head []byte) {
	m.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		m.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(head, 0); err != nil {
		m.Fatal(err)
	}
}
