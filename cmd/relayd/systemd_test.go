package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"relayd/config"
	"relayd/smtpd"

	"go.uber.org/goleak"
)

// TestMain has the test binary be relayd where a test starts it as a process.
func TestMain(m *testing.M) {
	if os.Getenv("BE_RELAYD") != "" {
		main()
	}
	goleak.VerifyTestMain(m) // and no test leaves a goroutine behind
}

// A manager is systemd for one service: it keeps the socket, and hears what the service says.
type manager struct {
	t       *testing.T
	socket  *net.TCPListener
	notify  *net.UnixConn
	file    string // relayd.toml
	process *exec.Cmd
	log     bytes.Buffer
}

func newManager(t *testing.T) *manager {
	dir, err := os.MkdirTemp("", "sd") // short, for a socket lies in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &manager{t: t}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(m.log.String())
		}
	})
	if m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.notify.Close() })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	m.socket = l.(*net.TCPListener)
	m.file = files(t, map[string]string{
		"relayd.toml":                  fmt.Sprintf("hostname = \"mx.example.test\"\nstate_dir = %q\n[listen]\nsmtp = [\"systemd:mx\"]\nsubmission = []\nsubmissions = []\n[outbound]\nport = 1\n", dir),
		"domains/example.test/aliases": "*: me@[127.0.0.1]\n",
	})
	return m
}

// start runs the service, as systemd does: sockets from file descriptor 3 on, for this process.
func (m *manager) start() {
	m.t.Helper()
	fd, err := m.socket.File()
	if err != nil {
		m.t.Fatal(err)
	}
	defer fd.Close()
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" "$@"`, os.Args[0], "-c", m.file)
	cmd.ExtraFiles = []*os.File{fd}
	cmd.Env = append(os.Environ(), "BE_RELAYD=1", "LISTEN_FDS=1", "LISTEN_FDNAMES=mx", "WATCHDOG_USEC=200000",
		"NOTIFY_SOCKET="+m.notify.LocalAddr().String())
	cmd.Stdout, cmd.Stderr = &m.log, &m.log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.process = cmd
	m.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
	})
}

// hear waits for a message that begins like that and returns it.
func (m *manager) hear(want string) string {
	m.t.Helper()
	m.notify.SetReadDeadline(time.Now().Add(60 * time.Second))
	buf := make([]byte, 4096)
	for {
		n, err := m.notify.Read(buf)
		if err != nil {
			m.t.Fatalf("no %q: %v", want, err)
		}
		if text := string(buf[:n]); strings.HasPrefix(text, want) {
			return strings.TrimSpace(text)
		}
	}
}

func (m *manager) signal(s os.Signal) {
	m.t.Helper()
	if err := m.process.Process.Signal(s); err != nil {
		m.t.Fatal(err)
	}
}

// A caller is a client of the service.
type caller struct {
	*manager
	c net.Conn
	r *bufio.Reader
}

func (m *manager) call() *caller {
	m.t.Helper()
	c, err := net.Dial("tcp", m.socket.Addr().String())
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(60 * time.Second))
	return &caller{m, c, bufio.NewReader(c)}
}

// do sends a line, unless it is empty, and wants the reply to begin like that.
func (c *caller) do(line, want string) {
	c.t.Helper()
	if line != "" {
		io.WriteString(c.c, line+"\r\n")
	}
	for {
		got, err := c.r.ReadString('\n')
		if err != nil || len(got) < 4 || got[3] != '-' {
			if !strings.HasPrefix(got, want) {
				c.t.Fatalf("%q: %q, %v; want %q", line, got, err, want)
			}
			return
		}
	}
}

func TestSystemdIsToldAndARestartDropsNobody(t *testing.T) {
	m := newManager(t)
	m.start()
	if got := m.hear("READY=1"); got != "READY=1\nSTATUS=0 messages in the queue, 0 connections" {
		t.Errorf("at the start: %q", got)
	}
	m.hear("WATCHDOG=1")
	m.hear("WATCHDOG=1")
	m.signal(syscall.SIGHUP)
	reloading := m.hear("RELOADING=1\nMONOTONIC_USEC=")
	if n, err := strconv.ParseInt(strings.TrimPrefix(reloading, "RELOADING=1\nMONOTONIC_USEC="), 10, 64); err != nil || n <= 0 {
		t.Errorf("%q", reloading)
	}
	m.hear("READY=1")

	idle, busy := m.call(), m.call()
	idle.do("", "220")
	busy.do("", "220")
	busy.do("EHLO client.test", "250")
	busy.do("MAIL FROM:<>", "250")
	busy.do("RCPT TO:<box@example.test>", "250")
	busy.do("DATA", "354")
	m.signal(syscall.SIGTERM)
	m.hear("STOPPING=1\nSTATUS=Shutting down")
	idle.do("", "421 4.3.2")
	m.hear("WATCHDOG=1") // it hangs no more than before
	between := m.call()  // systemd has the socket, so this one waits
	busy.do("Subject: x\r\n\r\nx\r\n.", "250 2.0.0")
	busy.do("", "421 4.3.2")
	if err := m.process.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
	m.start()
	if got := m.hear("READY=1"); !strings.HasPrefix(got, "READY=1\nSTATUS=1 messages in the queue, ") {
		t.Errorf("at the next start: %q", got)
	}
	between.do("", "220")
	between.do("QUIT", "221")
	m.signal(syscall.SIGTERM)
	if err := m.process.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}

// stuck is a listener with one connection, at whose address whoever asks for it hangs.
type stuck struct {
	net.Listener
	asked chan struct{}
	free  chan struct{}
}

type stuckConn struct {
	net.Conn
	l *stuck
}

func (l *stuck) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return stuckConn{c, l}, err
}

func (c stuckConn) RemoteAddr() net.Addr {
	select {
	case c.l.asked <- struct{}{}:
	default:
	}
	<-c.l.free
	return c.Conn.RemoteAddr()
}

func TestAnAcceptLoopThatHangsIsSeen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stuck{l, make(chan struct{}, 1), make(chan struct{})}
	srv := smtpd.New(smtpd.Options{Hostname: "mx.example.test", Limits: smtpd.DefaultLimits(), Gatekeep: smtpd.NewGatekeeper(1, 1), Log: slog.New(slog.DiscardHandler)}, nil)
	served := make(chan error)
	go func() { served <- srv.Serve(s) }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-s.asked
	time.Sleep(time.Millisecond)
	if srv.Accepting(0) || !srv.Accepting(time.Minute) {
		t.Error("it is not seen that the loop hangs")
	}
	close(s.free)
	c.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	srv.Shutdown(ctx)
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestNoMailIsSummedUp(t *testing.T) {
	file := files(t, map[string]string{"relayd.toml": fmt.Sprintf("hostname = \"mx.example.test\"\nstate_dir = %q\n[listen]\nsmtp = [\"127.0.0.1:0\"]\nsubmission = []\nsubmissions = []\n", t.TempDir())})
	conf, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	d, err := start(ctx, conf, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if got := d.summary(); got != "0 messages in the queue, 0 connections" || !d.isAlive() {
		t.Errorf("%q", got)
	}
	stop()
	if err := d.Wait(); err != nil {
		t.Error(err)
	}
}
