// Package filter asks others about mail of strangers: block lists in DNS about the client (RFC 5782),
// rspamd (HTTP, POST /checkv2) and milters (Sendmail's protocol) about the message. It
// remembers who has sent what the destination took for spam. All of it is for mail at the door: what
// it refuses is refused in the session, for spam that is forwarded counts against who forwards it.
//
// It promises:
//
//   - Doubt lets mail pass. A list, rspamd or a milter that does not answer, or answers nonsense, is as
//     if it were not there; the admin is told, in the status for as long as it lasts and in the log
//     once a minute at most.
//   - No byte of a message changes: what a filter would add to it or alter is not heeded. Nor is mail
//     thrown away: what a milter would discard is refused.
//   - Whatever is asked has a limit in time, in bytes, and in how much goes on at once.
//   - No byte of an answer gets into a reply but printable ASCII, a bounded number of them.
package filter

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"relayd/address"
	"relayd/dns"
	"relayd/message"
	"relayd/reply"
)

// A Resolver answers from DNS; *dns.Resolver is one.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
	IP(ctx context.Context, host, network string) (dns.Answer[netip.Addr], error)
}

// Options are what a Filter asks. Where a list is empty or Rspamd is "", nobody is asked.
type Options struct {
	DNSBL    []string // zones
	Rspamd   string   // "http://host:port", "https://host:port" or "unix:/path"
	Password string   // of rspamd; "" for none
	Milters  []string // "inet:host:port" or "unix:/path", asked in this order
	Hostname string
	Resolver Resolver
	Now      func() time.Time
	Log      *slog.Logger
}

// A Filter is safe for concurrent use.
type Filter struct {
	opt      Options
	lists    lists
	rspamd   *rspamd // nil: there is none
	milters  []*milter
	suspects suspects
	troubles troubles
	counts   struct{ dnsbl, rspamd, milter, suspect atomic.Uint64 }
}

// maxAtOnce bounds the messages that rspamd, and each milter, has at a time from us.
const maxAtOnce = 50

// New makes a Filter. It keeps nothing open.
func New(opt Options) *Filter {
	f := &Filter{opt: opt, suspects: suspects{list: map[string]Suspect{}}, troubles: troubles{log: opt.Log, list: map[string]trouble{}}}
	f.lists.silent = map[string]time.Time{}
	if opt.Rspamd != "" {
		f.rspamd = newRspamd(opt)
	}
	for _, m := range opt.Milters {
		f.milters = append(f.milters, newMilter(m, opt.Hostname))
	}
	return f
}

// A Message is what came in a transaction of a stranger.
type Message struct {
	ID         string     // queue ID
	IP         netip.Addr // of the client
	Name       string     // what reverse DNS calls it, confirmed; "" if nothing
	Helo       string     // as it was said, unchecked
	Sender     address.Address
	Recipients []address.Address
	Header     message.Header
	Open       func() io.Reader // the message as it came, from its start; called once by each filter
	Size       int64            // of that, in bytes
	Source     string           // see Source
	// Strict says that the message is suspicious already, by what its author's domain asks for: what
	// rspamd would only mark is refused.
	Strict bool
}

// Judge asks rspamd and the milters about a message. The error is the refusal, a *reply.Reply, or nil
// where it is to pass; said is what the log is to tell of it in either case. Of a suspected source,
// rspamd's word is taken strictly; without its word mail is put off for an hour after each refusal.
func (f *Filter) Judge(ctx context.Context, m *Message) (said []any, refusal error) {
	suspected, until := f.suspects.look(m.Source, f.opt.Now())
	if suspected {
		said = append(said, "suspect", m.Source)
	}
	score, scored := f.scored(ctx, m)
	if scored {
		said = append(said, "rspamd", score.Action, "score", score.Score)
		if r := score.refusal(m.Strict || suspected); r != nil {
			f.counts.rspamd.Add(1)
			return said, r
		}
	}
	if !scored && f.opt.Now().Before(until) {
		f.counts.suspect.Add(1)
		return said, reply.New(450, "4.7.1", "The mailboxes behind this server have refused too much of your mail as spam of late: please try again in an hour")
	}
	for _, one := range f.milters {
		r, err := one.ask(ctx, m)
		switch {
		case err != nil:
			f.trouble(ctx, one.name, err)
			continue
		case r != nil:
			f.counts.milter.Add(1)
			return append(said, "milter", one.setting), r
		}
		f.troubles.clear(one.name)
	}
	return said, nil
}

// scored is what rspamd says of a message, and whether it does.
func (f *Filter) scored(ctx context.Context, m *Message) (score, bool) {
	if f.rspamd == nil {
		return score{}, false
	}
	s, err := f.rspamd.check(ctx, m)
	if err != nil {
		f.trouble(ctx, f.rspamd.name, err)
		return score{}, false
	}
	f.troubles.clear(f.rspamd.name)
	return s, true
}

// trouble notes why a filter has said nothing, if that is not for us to blame: we go down.
func (f *Filter) trouble(ctx context.Context, name string, err error) {
	if ctx.Err() == nil {
		f.troubles.note(name, "mail passes without it: "+clean(err.Error(), maxCause), f.opt.Now())
	}
}

// maxCause is how much of an error the admin reads, in octets.
const maxCause = 200

// Counts are how many transactions were refused because of a DNS list, and how many messages because
// of the others, since the start.
type Counts struct{ DNSBL, Rspamd, Milter, Suspect uint64 }

// Counts returns them as they are now.
func (f *Filter) Counts() Counts {
	return Counts{f.counts.dnsbl.Load(), f.counts.rspamd.Load(), f.counts.milter.Load(), f.counts.suspect.Load()}
}

// Uses names what is asked, in the order in which it is.
func (f *Filter) Uses() []string {
	var list []string
	for _, zone := range f.opt.DNSBL {
		list = append(list, shown(zone))
	}
	if f.rspamd != nil {
		list = append(list, f.rspamd.name)
	}
	for _, m := range f.milters {
		list = append(list, m.name)
	}
	return list
}

// Warnings are what the admin should know, each in a sentence or two.
func (f *Filter) Warnings() []string { return f.troubles.warnings() }

// clean makes text from outside fit for a reply and for the log: printable ASCII with single blanks,
// at most so many octets.
func clean(text string, most int) string {
	out := make([]byte, 0, min(len(text), most))
	for _, c := range []byte(text) {
		switch {
		case c == ' ' || c >= '\t' && c <= '\r':
			if len(out) == 0 || out[len(out)-1] == ' ' {
				continue
			}
			c = ' '
		case c < ' ' || c > '~':
			c = '?'
		}
		if len(out) == most {
			break
		}
		out = append(out, c)
	}
	for len(out) > 0 && out[len(out)-1] == ' ' {
		out = out[:len(out)-1]
	}
	return string(out)
}
