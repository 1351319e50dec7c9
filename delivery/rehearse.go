package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"relayd/address"
	"relayd/reply"
)

// A Rehearsal is how a session went that carried no message.
type Rehearsal struct {
	Host string // the server's name; "" where only its address is known
	IP   string // that was connected to, or was to be; "" for a unix socket, and when there was none
	TLS  string // version, such as "TLS1.3"; "" in the clear
	// Verified says that the certificate is right for Host: by DANE where the domain has it, else as
	// an authority says that this machine trusts.
	Verified bool
	Flaw     string // what is wrong with the certificate, or why there was no TLS although it was offered
	// Stage is what it came to: "DNS", "connect", "greeting", "EHLO" ("HELO", "LHLO"), "STARTTLS",
	// "TLS" (the handshake), "AUTH", "MAIL", "RCPT", or "QUIT" when nothing is wrong.
	Stage   string
	Replies []Heard // in their order, also those of a first connection where TLS failed
	// Refused is the server's reply that ended it; nil if none did. Verdict is what would follow for a
	// message, from that or from what is wrong with our own address.
	Refused *reply.Reply
	Verdict Verdict
}

// Heard is a server's reply.
type Heard struct {
	Stage string // to what, as in Rehearsal
	Code  int    // 200 to 599
	Text  string // what stands behind the code, on one line
}

// A Trial is what RehearseMX asks for.
type Trial struct {
	Domain    string // whose mail exchangers
	Host      string // instead of them, as in Route.Hosts; "" for none
	Network   string // "ip4" or "ip6", whatever Options.Family says
	Sender    string // the reverse-path; "" is the null one
	Recipient string // an address in Domain, or any other; "" to end after MAIL
}

// Rehearse goes as far along route as a message would: it connects, does TLS, logs in where there is
// a password, and quits. It needs one of the addresses to let it; else it returns the Rehearsal and
// the error of that which says most about why none did. The error begins with the stage, and holds a
// *reply.Reply. Addresses are tried too that are left alone because they failed of late. It ends with
// ctx, and counts in no TLS report. It is safe for concurrent use.
func (c *Client) Rehearse(ctx context.Context, route Route) (Rehearsal, error) {
	return c.rehearse(ctx, route, c.network(), func(*session) error { return nil })
}

// RehearseMX is Rehearse for the best mail exchanger of a domain over one address family, which is
// asked besides whether it would take a message: MAIL, RCPT, and no DATA. The next exchanger's turn
// comes only where one cannot be brought to MAIL. A refusal of MAIL or RCPT is the error.
func (c *Client) RehearseMX(ctx context.Context, trial Trial) (Rehearsal, error) {
	m := &Message{}
	var err error
	if trial.Sender != "" {
		if m.ReturnPath, err = address.Parse(trial.Sender); err != nil {
			return Rehearsal{}, fmt.Errorf("the sender: %w", err)
		}
	}
	if trial.Recipient != "" {
		to, err := address.Parse(trial.Recipient)
		if err != nil {
			return Rehearsal{}, fmt.Errorf("the recipient: %w", err)
		}
		m.Recipients = []Recipient{{Address: to}}
	}
	route := Route{Domain: trial.Domain}
	if trial.Host != "" {
		route.Hosts = []string{trial.Host}
	}
	return c.rehearse(ctx, route, trial.Network, func(s *session) error { return s.ask(m) })
}

// ask is a transaction without a message. The end of the connection ends it.
func (s *session) ask(m *Message) error {
	lines, stages := []string{s.mailLine(m)}, []Stage{AtMail, AtRcpt}
	for _, r := range m.Recipients {
		lines = append(lines, s.rcptLine(r))
	}
	for i, line := range lines {
		r, err := s.command(s.times.Command, line)
		switch {
		case err != nil:
			return err
		case r.Code/100 != 2:
			return &refusal{r, stages[i]}
		}
	}
	return nil
}

// rehearse tries the addresses along route over network until one is brought to where then begins.
func (c *Client) rehearse(ctx context.Context, route Route, network string, then func(*session) error) (Rehearsal, error) {
	route.heard = &transcript{}
	groups, err := c.hosts(ctx, route, true)
	if err != nil {
		return nowhere("", err)
	}
	a, tried := c.newAttempt(ctx, route, &Message{}), 0
	best, why := nowhere("", reply.New(451, "4.4.1", "There is no address to connect to"))
	var said Result // what stands in why
	for n, group := range groups {
		hosts := c.resolve(ctx, group[:min(len(group), maxAddresses)], network)
		if len(route.Hosts) == 0 && c.hasSelf(hosts) {
			if n == 0 {
				return nowhere(route.Domain, loop(route.Domain))
			}
			break
		}
		for _, f := range hosts {
			to := c.audited(c.protect(ctx, route, &f, a))
			if f.err != nil && said.Host == "" {
				best, why = nowhere(f.host.name, f.err)
				said = Result{Reply: reply.From(f.err), Host: f.host.name}
			}
			for _, t := range f.targets {
				if tried++; tried > maxAddresses || ctx.Err() != nil {
					return best, why
				}
				r, err := c.rehearseAt(ctx, to, t, then)
				if err == nil || r.Stage == "MAIL" || r.Stage == "RCPT" {
					return r, err
				}
				last := Result{Reply: reply.From(err), Host: t.String()}
				if told := tellMore(said, last); told.Host == last.Host {
					best, why, said = r, err, told
				}
			}
		}
	}
	return best, why
}

// nowhere is the result when there is no address.
func nowhere(host string, err error) (Rehearsal, error) {
	return Rehearsal{Host: host, Stage: "DNS"}, fmt.Errorf("DNS: %w", err)
}

// audited is the route with every certificate judged, and none demanded that was not before.
func (c *Client) audited(route Route) Route {
	if d := route.demand; d != nil && (d.level == mayTLS || d.level == mustTLS) {
		judged := *d
		judged.audit = true
		route.demand = &judged
	}
	return route
}

// rehearseAt is the session with one address.
func (c *Client) rehearseAt(ctx context.Context, route Route, t target, then func(*session) error) (Rehearsal, error) {
	*route.heard = transcript{}
	r := Rehearsal{Host: t.name}
	if t.path == "" {
		r.IP = t.addr.Addr().String()
	}
	s, err := c.connect(ctx, route, t)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { s.conn.Close() })
		r.TLS, r.Verified = s.tls.Version, s.tls.Version != "" && s.flaw == nil
		s.heard.flawed(s.flaw)
		err = then(s)
		stop()
		s.close()
	}
	r.Stage, r.Replies, r.Flaw = route.heard.stage, route.heard.replies, route.heard.flaw
	if err != nil {
		r.Verdict, _ = judge(err, t)
		if said, ok := errors.AsType[*refusal](err); ok {
			r.Refused = said.Reply
		}
		return r, fmt.Errorf("%s: %w", r.Stage, err)
	}
	r.Stage = "QUIT"
	return r, nil
}

// A transcript is what was heard in a session. A nil one keeps nothing.
type transcript struct {
	stage   string
	replies []Heard
	flaw    string
}

// stages are what a line begins with that begins one; others, which may be passwords, belong to the
// one before.
var stages = []string{"connect", "greeting", "TLS", "EHLO", "HELO", "LHLO", "STARTTLS", "AUTH", "MAIL", "RCPT"}

// begin notes a stage, or the one that a command begins.
func (t *transcript) begin(line string) {
	if t == nil {
		return
	}
	if first, _, _ := strings.Cut(line, " "); slices.Contains(stages, first) {
		t.stage = first
	}
}

// hear notes a reply. No password of the session stands in it.
func (t *transcript) hear(r *reply.Reply, key poolKey) {
	if t == nil {
		return
	}
	if key.password != "" {
		r = withoutSecrets(r, Route{User: key.user, Password: key.password})
	}
	_, text, _ := strings.Cut(r.String(), " ")
	t.replies = append(t.replies, Heard{t.stage, r.Code, text})
}

// flawed notes what is wrong with TLS.
func (t *transcript) flawed(err error) {
	if t != nil && err != nil {
		t.flaw = err.Error()
	}
}
