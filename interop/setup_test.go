//go:build interop

package interop

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"relayd/internal/sink"
)

// A bare is a machine with nothing on it, whose files are below a folder, in a world of its own: a
// resolver, a name server for example.test, the provider's reverse DNS, and a mail server of Gmail's.
type bare struct {
	t     *testing.T
	root  string
	relay *namespace
	files *site // of the world
	gmail *sink.Sink
	nsd   *os.Process
	zones map[string]string
	last  int // serial number of the zones
}

// Where they are. 192.0.2.1 looks like an address of the world's to relayd.
const (
	bareIP  = "192.0.2.1"
	worldIP = "192.0.2.2"
)

func newBare(t *testing.T, root string) *bare {
	t.Helper()
	relay, world := newNamespace(t, "bare", worldIP), newNamespace(t, "world", worldIP)
	link(t, relay, world, bareIP+"/24", worldIP+"/24")
	ip(t, "-n", world.name, "address", "add", "10.53.0.1/32", "dev", "lo")
	ip(t, "-n", relay.name, "route", "add", "10.53.0.1/32", "via", worldIP)
	b := &bare{t: t, root: root, relay: relay, files: newSite(t, ""), zones: map[string]string{
		"example.test":     "ns.example.test. A 10.53.0.1\n",
		"192.in-addr.arpa": "1.2.0.192.in-addr.arpa. PTR " + hostname + ".\n",
	}}
	b.files.ns = world
	b.gmail = startIn(t, world, sink.Options{Addr: worldIP + ":25", Hostname: "mx.gmail.test"})
	world.dnsmasq(strings.NewReplacer("WORLD", worldIP).Replace("listen-address=WORLD\nbind-interfaces\ncache-size=0\nlocal=/com/\nlocal=/org/\n"+
		"server=/example.test/10.53.0.1\nserver=/192.in-addr.arpa/10.53.0.1\nmx-host=gmail.test,mx.gmail.test,5\nhost-record=mx.gmail.test,WORLD\n"), nil)
	b.publish()
	b.nsd = startNSD(t, b.files, []string{"example.test", "192.in-addr.arpa"})
	b.write("/etc/resolv.conf", "nameserver "+worldIP+"\n", 0o644)
	return b
}

// startIn starts a sink in a namespace. The thread that makes its socket ends with its goroutine.
func startIn(t *testing.T, n *namespace, opt sink.Options) (s *sink.Sink) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		file, err := os.Open("/run/netns/" + n.name)
		if err == nil {
			defer file.Close()
			if err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err == nil {
				s, err = sink.Start(opt)
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// publish has the name server serve the zones as they are now.
func (b *bare) publish() {
	b.t.Helper()
	b.last++
	for zone, records := range b.zones {
		b.files.write(zone+".zone", fmt.Sprintf("$TTL 300\n%s. SOA ns.example.test. hostmaster.example.test. %d 3600 600 86400 60\n%[1]s. NS ns.example.test.\n%[3]s",
			zone, b.last, records))
	}
	if b.nsd != nil {
		if err := b.nsd.Signal(syscall.SIGHUP); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bare) write(name, text string, mode fs.FileMode) {
	b.t.Helper()
	file := filepath.Join(b.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), mode)); err != nil {
		b.t.Fatal(err)
	}
}

// inside is a shell command on the machine.
func (b *bare) inside(command string) *exec.Cmd {
	const enter = `mkdir -p "$0/proc" && mount -t proc proc "$0/proc" && exec chroot "$0" "$@"`
	words := strings.Fields(command)
	return b.relay.command("/bin/sh", append([]string{"-c", enter, b.root}, words...)...)
}

// run runs a command on the machine, which must not fail.
func (b *bare) run(command string) string {
	b.t.Helper()
	out, err := b.inside(command).CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s: %v\n%s", command, err, out)
	}
	return string(out)
}

// tree is every file that setup may touch, with mode, owner, time and content.
func (b *bare) tree() map[string]string {
	b.t.Helper()
	all := map[string]string{}
	for _, dir := range []string{"etc", "usr/local", "var/lib/relayd/srs-secrets"} {
		err := filepath.WalkDir(filepath.Join(b.root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			var text []byte
			if info.Mode().IsRegular() {
				text, err = os.ReadFile(path)
			}
			all[path] = fmt.Sprint(info.Mode(), info.Sys().(*syscall.Stat_t).Uid, info.ModTime(), string(text))
			return err
		})
		if err != nil {
			b.t.Fatal(err)
		}
	}
	return all
}

var passwordLine = regexp.MustCompile(`(?m)^  Password +([a-z0-9-]+)$`)

// goes is the rest of the way, from a first output of setup: records are published, mail is forwarded
// and sent, and a further run changes nothing.
func (b *bare) goes(first, start string) {
	t := b.t
	t.Helper()
	found := passwordLine.FindStringSubmatch(first)
	if n := strings.Count(first, "\n"); found == nil || n > 40 {
		t.Fatalf("%d lines, or no password:\n%s", n, first)
	}
	before := b.tree()
	b.addCertificate()
	red := b.run("relay-util setup example.test")
	for _, want := range []string{"missing  " + hostname, "missing  example.test", "missing  relay1._domainkey.example.test", "missing  _dmarc.example.test",
		"look     1.2.0.192.in-addr.arpa", "nothing was to be done: all stands already", "There is no systemd here. Start relayd with: "} {
		if !strings.Contains(red, want) {
			t.Errorf("%q is missing in:\n%s", want, red)
		}
	}
	d := b.files.launch(b.inside(start))
	d.log.await(t, "relayd is up", func(l logLine) bool { return strings.Contains(l.text("msg"), "relayd is up") }, d.done)

	b.zones["example.test"] += b.run("relay-util dns example.test --zone")
	b.publish()
	green := ""
	waitFor(t, "the records turn green", patience, func() bool {
		green = b.run("relay-util setup example.test")
		return !strings.Contains(green, "missing")
	})
	if strings.Contains(green, "WRONG") || strings.Count(green, "\nok ") < 7 || !strings.Contains(green, "\nnothing was to be done") {
		t.Errorf("at the end:\n%s", green)
	}
	if n := strings.Count(green, "\n"); n > 40 {
		t.Errorf("%d lines:\n%s", n, green)
	}
	b.mail(found[1])
	for path, is := range b.tree() {
		if before[path] != is && !strings.Contains(path, "/certs") {
			t.Errorf("%s has changed", path)
		}
	}
	if out, err := b.inside("relay-util uninstall --yes --purge").CombinedOutput(); err == nil || !strings.Contains(string(out), "still runs") {
		t.Errorf("uninstall beside a relayd that runs: %v\n%s", err, out)
	}
	d.stop()
	b.run("relay-util uninstall --yes --purge")
	if _, err := os.Stat(filepath.Join(b.root, "etc/relayd")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("settings are left: %v", err)
	}
}

// addCertificate puts one where relayd looks, for it alone.
func (b *bare) addCertificate() {
	b.t.Helper()
	for _, name := range []string{"fullchain.pem", "privkey.pem"} {
		b.write("/etc/relayd/certs/mx/"+name, b.files.read("certs/mx/"+name), 0o600)
	}
	certs := filepath.Join(b.root, "etc/relayd/certs")
	info, err := os.Stat(certs)
	if err != nil {
		b.t.Fatal(err)
	}
	owner := info.Sys().(*syscall.Stat_t)
	for _, name := range []string{"mx", "mx/fullchain.pem", "mx/privkey.pem"} {
		if err := os.Chown(filepath.Join(certs, name), int(owner.Uid), int(owner.Gid)); err != nil {
			b.t.Fatal(err)
		}
	}
}

// mail has one message forwarded and one sent.
func (b *bare) mail(password string) {
	b.t.Helper()
	c := newDialog(b.t, b.files.ns.dial(bareIP+":25"))
	c.expect("the greeting", "220 ")
	c.say("EHLO client.test", "250 ")
	in := "From: friend@gmail.test\r\nTo: hello@example.test\r\nSubject: in\r\nMessage-ID: <in@gmail.test>\r\nDate: Sun, 1 Nov 2026 12:00:00 +0000\r\n\r\nHello.\r\n"
	if got := c.transaction("friend@gmail.test", "hello@example.test", []byte(in)); !strings.HasPrefix(got, "250 2.0.0 Ok: forwarded") {
		b.t.Error(got)
	}
	c = newDialog(b.t, b.files.ns.dial(bareIP+":587"))
	c.expect("the greeting", "220 ")
	c.say("EHLO client.test", "250 ")
	c.startTLS(&tls.Config{RootCAs: b.files.cert.Pool, ServerName: hostname})
	c.say("EHLO client.test", "250 ")
	c.login("app@example.test", password)
	out := "From: shop@example.test\r\nTo: friend@gmail.test\r\nSubject: out\r\n\r\nHello.\r\n"
	if got := c.transaction("shop@example.test", "friend@gmail.test", []byte(out)); !strings.HasPrefix(got, "250 2.0.0 Ok: queued") {
		b.t.Error(got)
	}
	for _, m := range arrived(b.t, b.gmail, 2) {
		switch m.Rcpts[0] {
		case "me@gmail.test":
			if !bytes.HasSuffix(m.Data, []byte(in)) {
				b.t.Errorf("forwarded:\n%s", m.Data)
			}
		case "friend@gmail.test":
			if !regexp.MustCompile(`d=example\.test;\s+s=relay1;`).Match(m.Data) {
				b.t.Errorf("sent:\n%s", m.Data)
			}
		default:
			b.t.Errorf("a message for %v", m.Rcpts)
		}
	}
}

// TestSetup: a root file system is made from nothing by --root, and a relay runs in it.
func TestSetup(t *testing.T) {
	b := newBare(t, t.TempDir())
	b.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\n", 0o644)
	b.write("/etc/group", "root:x:0:\n", 0o644)
	program(t, "relayd") // beside it
	util := program(t, "relay-util")
	for _, lib := range regexp.MustCompile(`/\S+`).FindAllString(string(mustRun(t, exec.Command(peer(t, "ldd"), util, program(t, "relayd")))), -1) {
		if info, err := os.Stat(lib); err == nil && info.Mode().IsRegular() && !strings.HasPrefix(lib, binDir) {
			b.write(lib, string(readFile(t, lib)), 0o755)
		}
	}
	start := time.Now()
	first := mustRun(t, b.relay.command(util, "setup", "example.test", "--forward", "me@gmail.test", "--hostname", hostname, "--root", b.root))
	b.goes(first, "/usr/local/bin/relayd -c /etc/relayd/relayd.toml")
	t.Logf("from zero to mail in %v", time.Since(start).Round(10*time.Millisecond))
}

// TestSetupOnDebian: the same on a bare Debian, where all is found by itself, with the command that
// setup prints where there is no systemd.
func TestSetupOnDebian(t *testing.T) {
	root := t.TempDir()
	if err := os.Chmod(filepath.Dir(root), 0o755); err != nil { // relayd must be able to enter
		t.Fatal(err)
	}
	if out, err := exec.Command(peer(t, "debootstrap"), "--variant=minbase", "bookworm", root).CombinedOutput(); err != nil {
		t.Fatalf("debootstrap: %v\n%s", err, out)
	}
	b := newBare(t, root)
	for _, name := range []string{"relayd", "relay-util"} {
		b.write("/root/build/"+name, string(readFile(t, program(t, name))), 0o755)
	}
	start := time.Now()
	first := b.run("/root/build/relay-util setup example.test --forward me@gmail.test")
	took := time.Since(start)
	for _, want := range []string{"found  hostname: " + hostname + ", the reverse DNS of " + bareIP, "made   /usr/local/bin/relayd, copied from /root/build", "made   user and group relayd"} {
		if !strings.Contains(first, want) {
			t.Errorf("%q is missing in:\n%s", want, first)
		}
	}
	command := regexp.MustCompile(`Start relayd with: (.*)`).FindStringSubmatch(first)
	if command == nil {
		t.Fatal(first)
	}
	b.goes(first, command[1])
	t.Logf("setup took %v, from zero to mail %v; it printed %d lines:\n%s",
		took.Round(10*time.Millisecond), time.Since(start).Round(10*time.Millisecond), strings.Count(first, "\n"), first)
}
