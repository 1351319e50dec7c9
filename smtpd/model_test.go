package smtpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"relayd/internal/testnet"
	"relayd/relay"
	"relayd/reply"
)

// A model is what RFC 5321, 3207 and 4954 say of a session, and our contract where they leave a
// choice: small enough to be read, with no word of how the server does it.
type model struct {
	submission, offersTLS bool

	tls, greeted, loggedIn bool
	failedLogins           int
	inMail                 bool
	recipients             []string
	messages               []string // the recipients of each that was taken
	over                   bool
}

func (m *model) reset() { m.inMail, m.recipients = false, nil }

const (
	modelRecipients = 3     // limit
	modelSize       = 10000 // bytes, limit
)

// A modelCommand is what a client may send, and what a session in state m answers: the codes, one for each
// reply. It changes m.
type modelCommand struct {
	sent   string
	answer func(m *model) []string
}

// always is for commands that change nothing.
func always(sent, code string) modelCommand {
	return modelCommand{sent, func(*model) []string { return []string{code} }}
}

func modelHello(sent string) modelCommand {
	return modelCommand{sent, func(m *model) []string {
		m.greeted = true
		m.reset()
		return []string{"250"}
	}}
}

func modelEnd(sent, code string) modelCommand {
	return modelCommand{sent, func(m *model) []string {
		m.over = true
		return []string{code}
	}}
}

func modelMail(sent, code string) modelCommand {
	return modelCommand{sent, func(m *model) []string {
		switch {
		case !m.greeted, m.inMail:
			return []string{"503"}
		case m.submission && !m.loggedIn:
			return []string{"530"}
		case code == "250", strings.HasSuffix(sent, "REQUIRETLS") && m.tls:
			m.inMail = true
			return []string{"250"}
		}
		return []string{code}
	}}
}

// modelRecipient has two codes: for a stranger, and for a user.
func modelRecipient(path, stranger, user string) modelCommand {
	return modelCommand{"RCPT TO:" + path, func(m *model) []string {
		code := stranger
		if m.loggedIn {
			code = user
		}
		switch {
		case !m.inMail:
			return []string{"503"}
		case code != "501" && len(m.recipients) == modelRecipients:
			return []string{"452"}
		case code == "250":
			m.recipients = append(m.recipients, path[max(1, strings.IndexByte(path, ':')+1):len(path)-1])
		}
		return []string{code}
	}}
}

// modelData sends a body of so many lines behind DATA; where that is refused they are read as commands.
func modelData(body string, lines int, code string) modelCommand {
	return modelCommand{"DATA\r\n" + body + "\r\n.", func(m *model) []string {
		if !m.inMail || len(m.recipients) == 0 {
			return append([]string{"503"}, slices.Repeat([]string{"500"}, lines+1)...)
		}
		if code == "250" {
			m.messages = append(m.messages, strings.Join(m.recipients, " "))
		}
		m.over = code == "550"
		m.reset()
		return []string{"354", code}
	}}
}

// modelLogin sends AUTH with what a dialog needs behind it, which are commands where AUTH is refused.
func modelLogin(sent string, codes ...string) modelCommand {
	return modelCommand{sent, func(m *model) []string {
		wrong := slices.Repeat([]string{"500"}, strings.Count(sent, "\r\n"))
		switch {
		case !m.submission:
			return append([]string{"502"}, wrong...)
		case !m.greeted, m.tls && (m.loggedIn || m.inMail):
			return append([]string{"503"}, wrong...)
		case !m.tls:
			return append([]string{"530"}, wrong...)
		case sent != "AUTH" && m.failedLogins == DefaultLimits().Logins:
			m.over = true
			return []string{"421"}
		}
		switch codes[len(codes)-1] {
		case "235":
			m.loggedIn = true
		case "535":
			m.failedLogins++
		}
		return codes
	}}
}

var modelSTARTTLS = modelCommand{"STARTTLS", func(m *model) []string {
	switch {
	case m.tls:
		return []string{"503"}
	case !m.offersTLS:
		return []string{"502"}
	}
	m.tls, m.greeted = true, false
	m.reset()
	return []string{"220"}
}}

// next is a command that leads on to a message.
func (m *model) next(t *rapid.T) modelCommand {
	switch {
	case !m.greeted:
		return modelHello("EHLO client.test")
	case m.offersTLS && !m.tls && rapid.Bool().Draw(t, "under TLS"):
		return modelSTARTTLS
	case m.submission && m.tls && !m.loggedIn:
		return modelLogin("AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0", "235")
	case !m.inMail:
		return modelMail("MAIL FROM:<a@example.test>", "250")
	case len(m.recipients) == 0:
		return modelRecipient("<b@example.test>", "250", "250")
	}
	return modelDATA
}

var modelRSET = modelCommand{"RSET", func(m *model) []string { m.reset(); return []string{"250"} }}

var modelDATA = modelData("From: a\r\n\r\n..\r\nx", 4, "250")

// stateCommands change the state; what they do where they should not comes up often enough only if they
// are chosen as often as all others.
var stateCommands = []modelCommand{
	modelHello("EHLO client.test"), modelMail("mail from:<> size=100 body=8bitmime", "250"),
	modelRecipient("<b@example.test>", "250", "250"), modelRecipient("<c@other.test>", "550", "250"), modelDATA, modelRSET, modelSTARTTLS,
}

var otherCommands = []modelCommand{
	modelHello("HELO client.test"), modelHello("ehlo [192.0.2.1]"),
	always("EHLO", "501"), always("HELO two words", "501"),
	always("NOOP", "250"), always("noop MAIL FROM:<x@example.test>", "250"), always("VRFY a", "252"), always("HELP", "214"), always("EXPN list", "502"),
	modelEnd("QUIT", "221"), modelEnd("GET / HTTP/1.1", "421"), modelEnd("BDAT x", "421"),
	always("BDAT 6 LAST\r\nQUIT", "502"), always("BDAT 0", "502"),
	always("STARTTLS now", "501"),
	modelLogin("AUTH LOGIN\r\nYXBwQGV4YW1wbGUudGVzdA==\r\nc2VjcmV0", "334", "334", "235"),
	modelLogin("AUTH LOGIN\r\nYXBwQGV4YW1wbGUudGVzdA==\r\n*", "334", "334", "501"),
	modelLogin("AUTH PLAIN\r\n!!", "334", "501"), modelLogin("AUTH PLAIN =", "501"), modelLogin("AUTH", "501"), modelLogin("AUTH CRAM-MD5", "504"),
	modelLogin("AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAd3Jvbmc=", "535"),
	modelMail("MAIL FROM:<a@example.test> REQUIRETLS", "530"), modelMail("MAIL FROM:<a@example.test> SIZE=10001", "552"),
	modelMail("MAIL FROM:<a@example.test> X=Y", "555"), modelMail("MAIL FROM:<a>", "501"), modelMail("MAIL TO:<a@example.test>", "501"), modelMail("MAIL", "501"),
	modelMail("MAIL FROM:<\xe9@example.test>", "553"), modelMail(`MAIL FROM:<"a@b"@example.test>`, "553"),
	modelRecipient(`<"c@other.test"@example.test>`, "553", "553"), modelRecipient("<c%other.test@example.test>", "250", "250"),
	modelRecipient("<@example.test:c@other.test>", "550", "250"), modelRecipient("<>", "501", "501"), modelRecipient("<b@>", "501", "501"),
	modelRecipient("<c@example.test@other.test>", "553", "553"), modelRecipient("b@example.test> NOTIFY=NEVER", "555", "555"),
	{"DATA now", func(*model) []string { return []string{"501"} }},
	modelData("a\n.\nFROB", 3, "550"),
	modelData(strings.Repeat("x", modelSize), 1, "552"),
	always("FROB", "500"), always("", "500"), always("\x16\x03\x01\x00", "501"), always("NO\xd6P x", "500"), always(strings.Repeat("x", 4000), "500"), always("NOOP\x00", "501"),
}

// A modelRelay takes mail for example.test, and from users for anywhere.
type modelRelay struct{ fakeRelay }

func (r *modelRelay) Recipient(_ context.Context, tx *relay.Transaction, to relay.Recipient) error {
	if to.Address.Domain != "example.test" && tx.Client.User.IsNull() {
		return reply.New(550, "5.7.1", "Not here")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending(tx).rcpts = append(r.pending(tx).rcpts, to.Address.String())
	return nil
}

// A modelSite is a server on pipes.
type modelSite struct {
	*Server
	relay             *modelRelay
	pipes             *pipeListener
	submission, offer bool // of STARTTLS
	resumed           tls.ClientSessionCache
}

// modelSites are an MX and a submission port, each with STARTTLS and without.
func modelSites(t *testing.T) []*modelSite {
	var list []*modelSite
	cert := testnet.Cert(t, "mx.example.test").TLS
	for i := range 4 {
		s := &modelSite{relay: &modelRelay{}, submission: i&1 != 0, offer: i&2 != 0}
		opt := fuzzOptions(s.submission)
		opt.Limits.Errors, opt.Limits.Recipients, opt.Limits.MessageSize = 1e6, modelRecipients, modelSize
		opt.Limits.Linger = time.Nanosecond
		if s.offer {
			opt.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
			s.resumed = tls.NewLRUClientSessionCache(1)
		}
		s.Server = New(opt, s.relay)
		s.pipes = &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Serve(s.pipes)
		}()
		t.Cleanup(func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			s.Shutdown(ctx)
			<-done
		})
		list = append(list, s)
	}
	return list
}

// TestSessionsFollowTheModel plays commands in random order, right and wrong, one by one and pipelined, against
// the model: each must be answered as it says, a message be taken where it says so and nowhere else, with
// the recipients of its own transaction, and nobody who has not logged in reach a foreign one.
// It plays ten times as many sessions as -rapid.checks says.
func TestSessionsFollowTheModel(t *testing.T) {
	var played, sent, messages atomic.Int64
	t.Run("lanes", func(t *testing.T) {
		for lane := range 10 {
			t.Run(strconv.Itoa(lane), func(t *testing.T) {
				t.Parallel()
				sites := modelSites(t)
				rapid.Check(t, func(t *rapid.T) {
					s := sites[rapid.IntRange(0, len(sites)-1).Draw(t, "site")]
					taken, said := s.play(t)
					messages.Add(int64(taken))
					sent.Add(int64(said))
					played.Add(1)
				})
			})
		}
	})
	t.Logf("%d sessions of %d commands, %d messages", played.Load(), sent.Load(), messages.Load())
	if messages.Load() == 0 {
		t.Error("no message was taken: the sessions prove nothing")
	}
}

// play sends commands, some at a time, and returns how many messages were taken and how many it sent.
func (s *modelSite) play(t *rapid.T) (messages, sent int) {
	s.relay.messages = nil // no session is open
	m := &model{submission: s.submission, offersTLS: s.offer}
	client, server := net.Pipe()
	defer client.Close()
	s.pipes.conns <- server
	p := &modelPeer{t: t, conn: client, in: bufio.NewReader(client), want: []string{"220"}, resumed: s.resumed}
	client.SetDeadline(time.Now().Add(time.Minute))
	batch := rapid.IntRange(1, 5).Draw(t, "batch")
	for i := range rapid.IntRange(5, 30).Draw(t, "length") {
		var c modelCommand
		switch rapid.IntRange(0, 3).Draw(t, "digression") {
		case 0:
			c = rapid.SampledFrom(otherCommands).Draw(t, "command")
		case 1:
			c = rapid.SampledFrom(stateCommands).Draw(t, "command")
		default:
			c = m.next(t)
		}
		p.out += c.sent + "\r\n"
		if m.over {
			continue // nothing is said to it
		}
		had := m.tls
		p.sent = append(p.sent, c.sent)
		p.want = append(p.want, c.answer(m)...)
		if !had && m.tls {
			<-p.exchange()
			p.startTLS()
		} else if i%batch == 0 && !m.over {
			<-p.exchange()
		}
	}
	if !m.over {
		p.out, p.want = p.out+"QUIT\r\n", append(p.want, "221")
	}
	written := p.exchange()
	if rest, err := io.ReadAll(p.in); len(rest) > 0 || err != nil {
		t.Fatalf("after %q it says %q, %v", p.sent, rest, err)
	}
	<-written
	var got []string
	for _, taken := range s.relay.taken() {
		got = append(got, strings.Join(taken.rcpts, " "))
	}
	if !slices.Equal(got, m.messages) {
		t.Fatalf("after %q it took messages for %q, want %q", p.sent, got, m.messages)
	}
	return len(got), len(p.sent)
}

// A modelPeer is the client's end.
type modelPeer struct {
	t    *rapid.T
	conn net.Conn
	in   *bufio.Reader
	sent []string // all of it
	out  string   // to be sent
	want []string // to be heard

	resumed tls.ClientSessionCache
}

// exchange sends what is to be sent and hears what is to be heard. The channel is closed when all was
// sent, or the server has closed the connection.
func (p *modelPeer) exchange() (written chan struct{}) {
	out, conn := p.out, p.conn
	written = make(chan struct{})
	go func() {
		defer close(written)
		io.WriteString(conn, out) // an error: the session is over, and the replies tell whether it should be
	}()
	for i, want := range p.want {
		got := p.reply()
		if !strings.HasPrefix(got, want) {
			p.t.Fatalf("%.300q: reply %d of the last exchange is %q, want %s", p.sent, i, got, want)
		}
	}
	p.out, p.want = "", nil
	return written
}

func (p *modelPeer) reply() string {
	for {
		line, err := p.in.ReadString('\n')
		if err != nil {
			return fmt.Sprintf("%q, %v", line, err)
		}
		if len(line) < 4 || line[3] != '-' {
			return strings.TrimSuffix(line, "\r\n")
		}
	}
}

func (p *modelPeer) startTLS() {
	// A session of TLS 1.2 that is resumed costs no key exchange, which else is most of what the test does.
	conn := tls.Client(p.conn, &tls.Config{
		InsecureSkipVerify: true, ServerName: "mx.example.test", MaxVersion: tls.VersionTLS12, ClientSessionCache: p.resumed,
	})
	if err := conn.Handshake(); err != nil {
		p.t.Fatalf("%.300q: TLS: %v", p.sent, err)
	}
	p.conn, p.in = conn, bufio.NewReader(conn)
}
