//go:build interop

package interop

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A namespace is a network namespace of its own, with nothing but a loopback interface to begin
// with, and with its own resolv.conf (ip-netns(8)).
type namespace struct {
	t    testing.TB
	name string
}

// namespaces counts those that were made, since tests that run at once give them the same roles.
var namespaces atomic.Int64

// newNamespace makes a namespace whose resolver is nameserver. It is gone with the test.
func newNamespace(t testing.TB, role, nameserver string) *namespace {
	t.Helper()
	n := &namespace{t: t, name: fmt.Sprintf("relayd-%s-%d-%d", role, os.Getpid(), namespaces.Add(1))}
	ip(t, "netns", "add", n.name)
	etc := filepath.Join("/etc/netns", n.name)
	t.Cleanup(func() {
		if out, err := exec.Command(peer(t, "ip"), "netns", "delete", n.name).CombinedOutput(); err != nil {
			t.Errorf("taking the namespace away: %v\n%s", err, out)
		}
		os.RemoveAll(etc)
	})
	if err := errors.Join(os.MkdirAll(etc, 0o755), os.WriteFile(filepath.Join(etc, "resolv.conf"), []byte("nameserver "+nameserver+"\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	ip(t, "-n", n.name, "link", "set", "lo", "up")
	return n
}

// ip runs ip(8).
func ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command(peer(t, "ip"), args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s (which needs root): %v\n%s", strings.Join(args, " "), err, out)
	}
}

// command is a program that runs in the namespace; its process is that of the program itself.
func (n *namespace) command(path string, args ...string) *exec.Cmd {
	return exec.Command(peer(n.t, "ip"), append([]string{"netns", "exec", n.name, path}, args...)...)
}

// dial connects to an IP address and port as a program in the namespace would.
func (n *namespace) dial(addr string) net.Conn {
	n.t.Helper()
	conn, err := n.tryDial(addr)
	if err != nil {
		n.t.Fatalf("connecting to %s: %v", addr, err)
	}
	return conn
}

// tryDial is dial for what may not listen yet. A thread enters the namespace to make the socket,
// which stays there; the thread ends with its goroutine.
func (n *namespace) tryDial(addr string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		file, openErr := os.Open("/run/netns/" + n.name)
		if err = openErr; err != nil {
			return
		}
		defer file.Close()
		if err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err == nil {
			conn, err = net.DialTimeout("tcp", addr, patience)
		}
	}()
	<-done
	return conn, err
}

// awaitPort waits until something listens, unless gone is closed.
func (n *namespace) awaitPort(port int, gone <-chan struct{}) {
	n.t.Helper()
	waitFor(n.t, fmt.Sprintf("port %d is open", port), patience, func() bool {
		select {
		case <-gone:
			n.t.Fatal("the server has ended")
		default:
		}
		conn, err := n.tryDial(fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			conn.Close()
		}
		return err == nil
	})
}

// link lays a cable between two namespaces and gives each end its address, like 10.9.0.1/24.
func link(t testing.TB, a, b *namespace, addrA, addrB string) {
	t.Helper()
	ip(t, "-n", a.name, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b.name)
	for n, addr := range map[*namespace]string{a: addrA, b: addrB} {
		args := []string{"-n", n.name, "address", "add", addr, "dev", "eth0"}
		if strings.Contains(addr, ":") {
			args = append(args, "nodad") // else the address is of no use for a second
		}
		ip(t, args...)
		ip(t, "-n", n.name, "link", "set", "eth0", "up")
	}
}

// dnsmasq serves .test from the given lines of dnsmasq.conf and TXT records in the namespace.
// Names in .test that they do not have do not exist.
func (n *namespace) dnsmasq(lines string, txt map[string]string) {
	n.t.Helper()
	conf := "no-hosts\nno-resolv\nlocal=/test/\nuser=root\npid-file=\nkeep-in-foreground\nlog-facility=-\n" + lines
	for _, name := range slices.Sorted(maps.Keys(txt)) {
		conf += "txt-record=" + name
		for piece := range slices.Chunk([]byte(txt[name]), 250) {
			conf += fmt.Sprintf(",%q", piece)
		}
		conf += "\n"
	}
	file := filepath.Join(n.t.TempDir(), "dnsmasq.conf")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		n.t.Fatal(err)
	}
	log := newLogbook()
	cmd := n.command(peer(n.t, "dnsmasq"), "-C", file)
	done := n.background(cmd, log)
	log.await(n.t, "dnsmasq has started", func(l logLine) bool { return strings.Contains(l.text("msg"), "started, version") }, done)
}

// background runs a program until the test ends.
func (n *namespace) background(cmd *exec.Cmd, log *logbook) (done chan struct{}) {
	n.t.Helper()
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = log, log, 5*time.Second
	if err := cmd.Start(); err != nil {
		n.t.Fatalf("starting %v: %v", cmd.Args, err)
	}
	done = make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait() // it ends by our signal
	}()
	n.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			<-done
		}
		if n.t.Failed() {
			n.t.Logf("%s said:\n%s", filepath.Base(cmd.Args[4]), log.tail(40))
		}
	})
	return done
}
