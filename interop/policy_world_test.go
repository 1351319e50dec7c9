//go:build interop

package interop

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"relayd/internal/sink"
	"relayd/internal/testnet"
)

// inside runs f in the namespace, as far as it opens sockets: they stay there.
func (n *namespace) inside(f func() error) {
	n.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with this function
		fd, err := os.Open(filepath.Join("/run/netns", n.name))
		if err == nil {
			defer fd.Close()
			err = unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		n.t.Fatalf("in namespace %s: %v", n.name, err)
	}
}

// listen listens on an address of the namespace.
func (n *namespace) listen(addr string) net.Listener {
	n.t.Helper()
	var l net.Listener
	n.inside(func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	n.t.Cleanup(func() { l.Close() })
	return l
}

// An exchanger is a mail exchanger that takes everything.
type exchanger struct {
	*sink.Sink
	ns  *namespace
	opt sink.Options
}

// exchanger starts one at port 25 of ip; without a certificate it does not offer STARTTLS.
func (n *namespace) exchanger(ip string, cert *testnet.Certificate) *exchanger {
	n.t.Helper()
	e := &exchanger{ns: n, opt: sink.Options{Addr: net.JoinHostPort(ip, "25"), Hostname: "mx.test"}}
	n.t.Cleanup(func() { e.Close() })
	e.start(cert)
	return e
}

// start starts it, again if need be, with another certificate.
func (e *exchanger) start(cert *testnet.Certificate) {
	e.ns.t.Helper()
	if e.Sink != nil {
		e.Close()
	}
	e.opt.TLSConfig = nil
	if cert != nil {
		e.opt.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert.TLS}}
	}
	e.ns.inside(func() (err error) {
		e.Sink, err = sink.Start(e.opt)
		return err
	})
}

// trusting starts the site's relayd so that it trusts the authorities of certificates.
func (s *site) trusting(certs ...testnet.Certificate) *daemon {
	s.t.Helper()
	var list []byte
	for _, c := range certs {
		list = append(list, lastBlock(c.Chain)...)
	}
	s.write("authorities.pem", string(list))
	cmd := s.command(program(s.t, "relayd"), "-c", s.config())
	cmd.Env = append(os.Environ(), "SSL_CERT_FILE="+s.path("authorities.pem"), "SSL_CERT_DIR="+s.dir)
	d := s.launch(cmd)
	d.awaitUp()
	return d
}

// A fate is what a test wants to become of a message.
type fate struct {
	tls    string // in the log, of a delivery: "TLS1.3 dane"
	reason string // of a deferral, a part of what queue-show says
}

// send submits a message to an address and checks what the first attempt comes to. It returns what
// the log says of it.
func (s *site) send(d *daemon, to string, want fate) logLine {
	s.t.Helper()
	at := d.log.mark()
	s.submitInside(s.ns, to, "policy")
	line := d.log.awaitAfter(s.t, at, "something became of the message to "+to, func(l logLine) bool {
		return l.text("to") == "<"+to+">" && (l.text("msg") == "delivered" || l.text("msg") == "deferred" || l.text("msg") == "failed")
	}, d.done)
	s.judge(line, to, want)
	return line
}

func (s *site) judge(line logLine, to string, want fate) {
	s.t.Helper()
	got := line.text("msg")
	if want.reason == "" {
		if got != "delivered" || line.text("tls") != want.tls {
			s.t.Errorf("%s: %s over %q, want it delivered over %q: %s (%s)", to, got, line.text("tls"), want.tls, line.text("reply"), line.text("cause"))
		}
		return
	}
	if shown := s.mustUtil("queue-show", line.text("id")); got != "deferred" || !strings.Contains(shown, want.reason) {
		s.t.Errorf("%s: %s; queue-show does not say %q:\n%s", to, got, want.reason, shown)
	}
}

// again has the queue try what waits for an address, and checks what comes of that.
func (s *site) again(d *daemon, to string, want fate) {
	s.t.Helper()
	at := d.log.mark()
	s.retryAll()
	s.judge(d.log.awaitAfter(s.t, at, "the message to "+to+" was tried again", func(l logLine) bool {
		return l.text("to") == "<"+to+">" && (l.text("msg") == "delivered" || l.text("msg") == "deferred" || l.text("msg") == "failed")
	}, d.done), to, want)
}
