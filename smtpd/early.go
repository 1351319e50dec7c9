package smtpd

import "syscall"

// noteEarly says in the log, once, that the client has spoken before it was greeted, which RFC 5321
// section 3.1 forbids and only programs that wait for no answer do. Nobody is made to wait for
// that to be found out: it is seen where the bytes are there already.
func (g *gate) noteEarly() {
	if g.begun {
		return
	}
	g.begun = true
	if !g.srv.opt.ImplicitTLS && hasInput(g.raw) {
		g.srv.log.Info("the client spoke before the greeting", "client", g.raw.RemoteAddr().String())
	}
}

// hasInput reports whether bytes wait to be read from conn, and leaves them there.
func hasInput(conn any) bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	raw.Control(func(fd uintptr) {
		n, _, _ = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT) // an error: there is none
	})
	return n > 0
}
