package traffic

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Load is what is sent where. Every session sends a message as soon as it has the answer to the
// one before, as a program does that has much to send: it waits for the answer to each command.
type Load struct {
	Addr     string
	Hello    string      // the EHLO name
	TLS      *tls.Config // nil for none
	StartTLS bool        // else TLS is from the first byte on
	User     string      // with it, AUTH PLAIN comes first
	Password string

	From          string
	To            func(id int) []string // the recipients of a message
	Size          int                   // of a body in bytes, about
	Sessions      int                   // at once
	PerConnection int                   // messages, then QUIT
	Pipelining    bool                  // MAIL, RCPT and DATA go out together
	Alone         bool                  // a message goes out when the one before has arrived

	refused atomic.Int64
	broken  atomic.Int64
	example atomic.Pointer[string]
}

// Refused counts messages and connections that the relay did not take, Broken connections that ended
// without a word; Example is what was said first.
func (l *Load) Refused() int { return int(l.refused.Load()) }

// Broken is explained at Refused.
func (l *Load) Broken() int { return int(l.broken.Load()) }

// Example is explained at Refused.
func (l *Load) Example() string {
	if s := l.example.Load(); s != nil {
		return *s
	}
	return ""
}

// Run sends until ctx ends and the messages that were begun by then are answered, or the ledger is full.
func (l *Load) Run(ctx context.Context, ledger *Ledger) {
	var wg sync.WaitGroup
	for range l.Sessions {
		wg.Go(func() {
			letter := newLetter(ledger.run, l.From, "reader@example.test", l.Size)
			for ctx.Err() == nil {
				switch err := l.connection(ctx, ledger, letter); {
				case errors.Is(err, errFull):
					return
				case err != nil:
					l.note(err)
					time.Sleep(20 * time.Millisecond) // else a relay that is down costs all our time
				}
			}
		})
	}
	wg.Wait()
}

var errFull = errors.New("the ledger is full")

// A refusal is an answer other than the one that was hoped for.
type refusal string

func (r refusal) Error() string { return string(r) }

func (l *Load) note(err error) {
	if r := refusal(""); errors.As(err, &r) {
		l.refused.Add(1)
	} else {
		l.broken.Add(1)
	}
	text := err.Error()
	l.example.CompareAndSwap(nil, &text)
}

// connection sends PerConnection messages, fewer if ctx ends, but at least one: where passwords take
// long, there would be nothing to measure otherwise.
func (l *Load) connection(ctx context.Context, ledger *Ledger, letter *letter) error {
	c, err := l.open()
	if err != nil {
		return err
	}
	defer func() { c.Close() }()
	for i := 0; i == 0 || i < l.PerConnection && ctx.Err() == nil; i++ {
		if err := l.message(c, ledger, letter); err != nil {
			return err
		}
		for l.Alone && ledger.Open() > 0 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
	}
	_, err = c.ask("221", "QUIT\r\n")
	return err
}

// message sends one. A refused one is counted and the session goes on.
func (l *Load) message(c *client, ledger *Ledger, letter *letter) error {
	id, ok := ledger.begin()
	if !ok {
		return errFull
	}
	c.SetDeadline(time.Now().Add(60 * time.Second))
	rcpts := l.To(id)
	err := l.envelope(c, rcpts)
	if err == nil {
		if _, err = c.Write(letter.numbered(id)); err == nil {
			_, err = c.answer("250")
		}
	}
	if r := refusal(""); errors.As(err, &r) && !strings.HasPrefix(string(r), "421") {
		l.note(err)
		_, err = c.ask("250", "RSET\r\n")
		return err
	}
	if err == nil {
		ledger.accept(id, len(rcpts))
	}
	return err
}

// envelope has the relay wait for the message.
func (l *Load) envelope(c *client, rcpts []string) error {
	c.out = append(append(append(c.out[:0], "MAIL FROM:<"...), l.From...), ">\r\n"...)
	if err := c.step("250", l.Pipelining); err != nil {
		return err
	}
	for _, rcpt := range rcpts {
		c.out = append(append(append(c.out, "RCPT TO:<"...), rcpt...), ">\r\n"...)
		if err := c.step("250", l.Pipelining); err != nil {
			return err
		}
	}
	c.out = append(c.out, "DATA\r\n"...)
	if !l.Pipelining {
		return c.step("354", false)
	}
	if err := c.step("250", false); err != nil { // the answer to MAIL; those to RCPT and DATA follow
		return err
	}
	for range rcpts {
		if _, err := c.answer("250"); err != nil {
			return err
		}
	}
	_, err := c.answer("354")
	return err
}

// A client is one connection.
type client struct {
	net.Conn
	r   *bufio.Reader
	out []byte
}

// open connects, and does what comes before the first message.
func (l *Load) open() (*client, error) {
	conn, err := net.DialTimeout("tcp", l.Addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	c := &client{Conn: conn, r: bufio.NewReader(conn)}
	c.SetDeadline(time.Now().Add(60 * time.Second))
	if err := l.greet(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (l *Load) greet(c *client) error {
	if l.TLS != nil && !l.StartTLS {
		c.secure(l.TLS)
	}
	if _, err := c.answer("220"); err != nil {
		return err
	}
	if _, err := c.ask("250", "EHLO "+l.Hello+"\r\n"); err != nil {
		return err
	}
	if l.StartTLS {
		if _, err := c.ask("220", "STARTTLS\r\n"); err != nil {
			return err
		}
		c.secure(l.TLS)
		if _, err := c.ask("250", "EHLO "+l.Hello+"\r\n"); err != nil {
			return err
		}
	}
	if l.User == "" {
		return nil
	}
	_, err := c.ask("235", "AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+l.User+"\x00"+l.Password))+"\r\n")
	return err
}

func (c *client) secure(conf *tls.Config) {
	c.Conn = tls.Client(c.Conn, conf)
	c.r = bufio.NewReader(c.Conn)
}

// ask sends a line and reads the answer, which is to begin with code.
func (c *client) ask(code, line string) (string, error) {
	if _, err := io.WriteString(c.Conn, line); err != nil {
		return "", err
	}
	return c.answer(code)
}

// step sends what has been put together and reads the answer, unless more is to go out with it.
func (c *client) step(code string, later bool) error {
	if later {
		return nil
	}
	if _, err := c.Write(c.out); err != nil {
		return err
	}
	c.out = c.out[:0]
	_, err := c.answer(code)
	return err
}

// answer reads one, of several lines perhaps, and returns its last line.
func (c *client) answer(code string) (string, error) {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return "", err
		}
		if len(line) < 4 {
			return "", fmt.Errorf("%q is no answer", line)
		}
		if line[3] == '-' {
			continue
		}
		if string(line[:3]) == code {
			return string(line), nil
		}
		return "", refusal(strings.TrimSpace(string(line)))
	}
}
