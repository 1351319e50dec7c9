package traffic

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// A Sink is a destination that takes everything, keeps nothing and tells the ledger of the day. Its
// methods are safe for concurrent use; Expect comes first.
type Sink struct {
	ledger    atomic.Pointer[Ledger]
	manner    atomic.Pointer[Manner]
	listeners []net.Listener
	mu        sync.Mutex
	conns     map[net.Conn]bool // nil once it is closed
	wg        sync.WaitGroup

	connections atomic.Int64
}

// A Manner is how a destination behaves.
type Manner struct {
	TLS      *tls.Config   // with it, STARTTLS is offered
	Slow     int           // so many messages of a hundred are answered late
	Pause    time.Duration // how late
	Refusing int           // so many of a hundred are refused for good
}

// Listen starts a Sink on each of the addresses.
func Listen(addrs ...string) (*Sink, error) {
	s := &Sink{conns: map[net.Conn]bool{}}
	s.Expect(NewLedger(0, 0), Manner{})
	for _, addr := range addrs {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			s.Close()
			return nil, err
		}
		s.listeners = append(s.listeners, l)
		s.wg.Go(func() { s.accept(l) })
	}
	return s, nil
}

// Expect has the messages that arrive from now on stand in another ledger.
func (s *Sink) Expect(l *Ledger, m Manner) {
	s.manner.Store(&m)
	s.ledger.Store(l)
	s.connections.Store(0)
}

// Connections counts those since Expect.
func (s *Sink) Connections() int { return int(s.connections.Load()) }

// Close ends every connection and waits for that.
func (s *Sink) Close() {
	for _, l := range s.listeners {
		l.Close()
	}
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	s.conns = nil
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *Sink) accept(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.conns == nil {
			s.mu.Unlock()
			conn.Close()
			return
		}
		s.conns[conn] = true
		s.wg.Go(func() {
			d := &dialog{sink: s, manner: s.manner.Load(), conn: conn}
			d.run()
			conn.Close()
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
		})
		s.mu.Unlock()
		s.connections.Add(1)
	}
}

// A dialog is one connection to the sink.
type dialog struct {
	sink   *Sink
	manner *Manner
	conn   net.Conn
	r      *bufio.Reader
	w      *bufio.Writer
	rcpts  int
	bounce bool // the reverse-path is empty
	secure bool
}

// idle is how long a client may say nothing.
const idle = 5 * time.Minute

func (d *dialog) run() {
	d.r, d.w = bufio.NewReaderSize(d.conn, 16<<10), bufio.NewWriter(d.conn)
	d.w.WriteString("220 sink.test ESMTP\r\n")
	for {
		if d.r.Buffered() == 0 && d.w.Flush() != nil {
			return
		}
		d.conn.SetReadDeadline(time.Now().Add(idle))
		line, err := d.r.ReadSlice('\n')
		if err != nil || len(line) < 6 || !d.command(line) {
			d.w.Flush()
			return
		}
	}
}

// command answers one; false ends the connection.
func (d *dialog) command(line []byte) bool {
	answer := "250 2.0.0 Ok\r\n"
	switch string(bytes.ToUpper(line[:4])) {
	case "EHLO":
		answer = "250-sink.test\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n"
		if d.manner.TLS != nil && !d.secure {
			answer += "250-STARTTLS\r\n"
		}
		answer += "250 ENHANCEDSTATUSCODES\r\n"
	case "STAR":
		d.w.WriteString("220 2.0.0 Ready\r\n")
		if d.manner.TLS == nil || d.secure || d.w.Flush() != nil {
			return false
		}
		d.conn, d.secure = tls.Server(d.conn, d.manner.TLS), true
		d.r, d.w = bufio.NewReaderSize(d.conn, 16<<10), bufio.NewWriter(d.conn)
		return true
	case "MAIL":
		d.rcpts, d.bounce = 0, bytes.Contains(line, []byte("<>"))
	case "RCPT":
		d.rcpts++
	case "RSET":
		d.rcpts = 0
	case "DATA":
		return d.data()
	case "QUIT":
		d.w.WriteString("221 2.0.0 Bye\r\n")
		return false
	}
	d.w.WriteString(answer)
	return true
}

// data reads a message and tells the ledger.
func (d *dialog) data() bool {
	if d.rcpts == 0 {
		d.w.WriteString("503 5.5.1 No recipients\r\n")
		return true
	}
	d.w.WriteString("354 Go on\r\n")
	if d.w.Flush() != nil {
		return false
	}
	id, body, signed, err := d.read()
	if err != nil {
		return false
	}
	run, number, size, known := parseID(id)
	ledger, rcpts := d.sink.ledger.Load(), d.rcpts
	d.rcpts = 0
	known = known && run == ledger.run && number < len(ledger.entries)
	switch {
	case d.bounce:
	case !known:
		ledger.strange.Add(1)
	case number%100 < d.manner.Refusing:
		ledger.refuse(number, rcpts)
		d.w.WriteString("550 5.7.1 We do not want this\r\n")
		return true
	default:
		ledger.arrive(number, rcpts, body == size, signed)
		if number%100 >= 100-d.manner.Slow {
			time.Sleep(d.manner.Pause)
		}
	}
	fmt.Fprintf(d.w, "250 2.0.0 Ok: queued as %s\r\n", strconv.Itoa(number))
	return true
}

// read returns the ID of a message, the size of its body, up to the final dot, and whether there is a signature.
func (d *dialog) read() (id []byte, body int, signed bool, err error) {
	inBody := false
	for {
		line, err := d.r.ReadSlice('\n')
		if err != nil {
			return nil, 0, false, err
		}
		switch {
		case len(line) == 3 && line[0] == '.':
			return id, body, signed, nil
		case inBody:
			body += len(line)
		case len(line) == 2:
			inBody = true
			d.conn.SetReadDeadline(time.Now().Add(idle))
		case line[0] == 'X' && bytes.HasPrefix(line, []byte(idField)):
			id = bytes.Clone(line[len(idField):])
		case line[0] == 'D' && bytes.HasPrefix(line, []byte("DKIM-Signature:")):
			signed = true
		}
	}
}
