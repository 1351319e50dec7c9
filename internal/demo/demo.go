// Package demo is the playground of `relayd -demo`: a whole relay on 127.0.0.1 with high ports,
// a domain, a user, a catch-all, keys and a certificate, all in a temporary folder, and a mail
// sink in place of the Internet that prints what arrives. It leaves nothing behind.
package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/smtp"
	"os"
	"path/filepath"
	"strings"
	"time"

	"relayd/certs"
	"relayd/config"
	"relayd/dkim"
	"relayd/internal/sink"
	"relayd/message"
	"relayd/users"
)

// The playground's world.
const (
	domain   = "example.test"
	hostname = "mx.example.test"
	user     = "app"
	outside  = "friend@elsewhere.test"
	mailbox  = "you@mailbox.test" // where the catch-all leads
)

// A Daemon is a running relay.
type Daemon interface {
	Address(service string) string
	Wait() error
}

// Start starts a relay that goes down when ctx ends.
type Start func(ctx context.Context, c *config.Config, log *slog.Logger) (Daemon, error)

// A playground is one run.
type playground struct {
	out      io.Writer
	dir      string
	password string
	keys     []*dkim.Key
	sink     *sink.Sink
	daemon   Daemon
}

// Run runs the playground until ctx ends.
func Run(ctx context.Context, out io.Writer, start Start) (err error) {
	p := &playground{out: out, password: users.Generate()}
	if p.dir, err = os.MkdirTemp("", "relayd-demo-"); err != nil {
		return err
	}
	defer os.RemoveAll(p.dir)
	if p.sink, err = sink.Start(sink.Options{Addr: "127.0.0.1:0", Hostname: "mx.elsewhere.test", Discard: true, Handler: p.show}); err != nil {
		return err
	}
	defer p.sink.Close()
	if err := p.furnish(); err != nil {
		return err
	}
	conf, err := config.Load(filepath.Join(p.dir, "relayd.toml"))
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if p.daemon, err = start(ctx, conf, log); err != nil {
		return err
	}
	p.introduce()
	if err := p.submitOne(); err != nil {
		fmt.Fprintln(out, "the first mail could not be submitted:", err)
		stop()
	}
	return p.daemon.Wait()
}

// furnish writes the files of the playground.
func (p *playground) furnish() error {
	hash, err := users.Hash(p.password, users.MinCost)
	if err != nil {
		return err
	}
	files := map[string]string{
		"relayd.toml": fmt.Sprintf("hostname = %q\npostmaster = %q\nstate_dir = %q\n[listen]\nsmtp = [%q]\nsubmission = [%q]\nsubmissions = [%q]\n"+
			"[tls]\nallow_self_signed = true\n[outbound]\nsmarthost = %q\n[log]\nlevel = \"warn\"\n",
			hostname, "admin@"+domain, filepath.Join(p.dir, "state"), freeAddress(2525), freeAddress(2587), freeAddress(2465), "smtp://"+p.sink.Addr()),
		"domains/" + domain + "/users":       user + ":" + hash + "\n",
		"domains/" + domain + "/domain.toml": "# there is no DNS to ask about strangers here\ndmarc = \"off\"\n",
		"domains/" + domain + "/aliases":     "# whatever is not listed goes to the mailbox\n*: " + mailbox + "\n",
	}
	for selector, algo := range map[string]string{"demo-rsa": "rsa2048", "demo-ed": "ed25519"} {
		text, err := dkim.Generate(algo)
		if err != nil {
			return err
		}
		key, err := dkim.ParseKey(domain, selector, text)
		if err != nil {
			return err
		}
		p.keys = append(p.keys, key)
		files["domains/"+domain+"/dkim/"+selector+".pem"] = string(text)
	}
	if err := addCertificate(files); err != nil {
		return err
	}
	for name, text := range files {
		file := filepath.Join(p.dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func addCertificate(files map[string]string) error {
	cert, err := certs.SelfSigned(hostname, time.Now())
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	files["certs/demo/fullchain.pem"] = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}))
	files["certs/demo/privkey.pem"] = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	return nil
}

// freeAddress is 127.0.0.1 with the port if nobody has it, else with one that the system chooses.
func freeAddress(port int) string {
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return "127.0.0.1:0"
	}
	l.Close()
	return addr
}

// introduce says what there is to play with.
func (p *playground) introduce() {
	_, port, _ := net.SplitHostPort(p.daemon.Address("submission"))
	_, tlsPort, _ := net.SplitHostPort(p.daemon.Address("submissions"))
	_, mxPort, _ := net.SplitHostPort(p.daemon.Address("smtp"))
	fmt.Fprintf(p.out, `relayd is playing on 127.0.0.1. Nothing is installed and no mail leaves this machine:
a sink stands for the Internet and prints below whatever arrives there.

  domain      %s, where every address is forwarded to %s
  user        %s@%s
  password    %s
  submission  127.0.0.1:%s (STARTTLS)   127.0.0.1:%s (TLS)
  MX          127.0.0.1:%s
  files       %s

Copy one of these into another terminal:

  1. submit a mail as the user
     swaks --server 127.0.0.1:%s --tls --auth PLAIN --auth-user %s@%s --auth-password %s \
           --from %s@%s --to %s
     (or: curl -sk --crlf --ssl-reqd smtp://127.0.0.1:%s -u '%s@%s:%s' --mail-from %s@%s \
           --mail-rcpt %s -T - <<< $'From: %s@%s\nSubject: hello\n\nHello from curl')

  2. write to an address that only the catch-all has
     swaks --server 127.0.0.1:%s --from stranger@elsewhere.test --to anything@%s

  3. look at the queue
     %s -c %s/relayd.toml queue-list

The first one is being done for you now. Ctrl-C ends it all and leaves nothing behind.

`, domain, mailbox, user, domain, p.password, port, tlsPort, mxPort, p.dir,
		port, user, domain, p.password, user, domain, outside,
		port, user, domain, p.password, user, domain, outside, user, domain,
		mxPort, domain, tool(), p.dir)
}

// tool is how relay-util is called: from beside relayd, or else from its source.
func tool() string {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "relay-util")
		if info, err := os.Stat(beside); err == nil && !info.IsDir() {
			return beside
		}
	}
	return "go run ./cmd/relay-util"
}

// submitOne does what the first command says.
func (p *playground) submitOne() error {
	c, err := smtp.Dial(p.daemon.Address("submission"))
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{InsecureSkipVerify: true, ServerName: hostname}); err != nil { // the certificate is ours, made a second ago
		return err
	}
	from := user + "@" + domain
	if err := c.Auth(smtp.PlainAuth("", from, p.password, "127.0.0.1")); err != nil {
		return err
	}
	text := fmt.Sprintf("From: Your app <%s>\r\nTo: %s\r\nSubject: The first mail\r\n\r\nIt was submitted with a password over TLS, signed, queued and delivered.\r\n", from, outside)
	return sendMail(c, from, outside, text)
}

func sendMail(c *smtp.Client, from, to, text string) error {
	if err := c.Mail(from); err != nil {
		return err
	}
	if err := c.Rcpt(to); err != nil {
		return err
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return c.Quit()
}

// show prints a message that has arrived: its envelope, what it says, and whether the signature holds.
func (p *playground) show(m *sink.Message) {
	h, _ := message.ReadHeader(strings.NewReader(string(m.Data)))
	var b strings.Builder
	fmt.Fprintf(&b, "-- a mail has arrived (%d bytes) --\n", len(m.Data))
	fmt.Fprintf(&b, "  envelope   from <%s> to <%s>\n", m.From, strings.Join(m.Rcpts, ">, <"))
	for _, name := range []string{"Delivered-To", "X-Forwarded-To", "Received", "From", "To", "Subject", "Date", "Message-ID"} {
		for _, v := range h.Values(name) {
			fmt.Fprintf(&b, "  %-10s %s\n", name, strings.Join(strings.Fields(v), " "))
		}
	}
	fmt.Fprintf(&b, "  DKIM       %s\n\n", p.verify(m.Data))
	io.WriteString(p.out, b.String())
}

func (p *playground) verify(text []byte) string {
	results, err := dkim.Verify(context.Background(), strings.NewReader(string(text)), p.lookup)
	if err != nil {
		return "could not be checked: " + err.Error()
	}
	if len(results) == 0 {
		return "not signed"
	}
	words := make([]string, len(results))
	for i, r := range results {
		words[i] = fmt.Sprintf("%s by %s (%s)", r.Kind, r.Domain, r.Algorithm)
		if r.Err != nil {
			words[i] += ": " + r.Err.Error()
		}
	}
	return strings.Join(words, ", ")
}

// lookup is the DNS of the playground: it knows the keys of its domain.
func (p *playground) lookup(_ context.Context, name string) ([]string, error) {
	for _, k := range p.keys {
		if r := k.Record(); r.Name == strings.TrimSuffix(name, ".") {
			return []string{r.Value}, nil
		}
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}
