// Package digest tells the postmaster of each hosted domain, by one mail a day at most, which mail could
// not be forwarded: to whom it was, from whom, when, and what the destination said. It promises:
//
//   - There is no mail where there is nothing to tell.
//   - Noting costs no disk access. What was noted survives an orderly end; a crash or power cut loses
//     at most the last minute of it, or sends a digest twice.
//   - Memory, disk and mail are bounded, however much fails: a domain has at most maxLines lines in its
//     next digest, and what goes past that is counted.
//   - Nothing that a sender or a server said can end a line of the mail or begin a field of its header.
//
// The state on disk and the mail hold addresses of senders, as does the mail that is forwarded:
// `[log] privacy` is about the log, and keeps nothing out of here.
package digest

import (
	"context"
	"encoding/json"
	"hash/fnv"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"relayd/address"
	"relayd/message"
)

const (
	// every is how often Run looks whether a digest is due, and saves what is new.
	every = time.Minute
	// sendAt is the time of the day in UTC from which digests are sent, over the hour that follows.
	sendAt = 5 * time.Hour
	// retryAfter is when a digest that could not be sent is tried again.
	retryAfter = time.Hour
	// maxLines bounds what is told of one domain, at some 500 bytes a line.
	maxLines = 200
	// maxMails is how many messages are named that failed for one reason: a wave of spam to one
	// address must leave room for the others.
	maxMails = 20
	// groupLines is what a group takes but for its messages.
	groupLines = 4
	// maxText bounds what is quoted of others, in bytes: two of them and what stands between fit in a
	// line of 998 octets.
	maxText = 450
)

// An Entry is a copy of a message that could not be forwarded.
type Entry struct {
	ID     string          // of the message in the queue
	Alias  address.Address // as it was written to, in a hosted domain
	Target address.Address // where it leads
	Sender address.Address // reverse-path as it came; zero is "<>"
	Reply  string          // why: the destination's words, or ours
}

// Options are a Book's. All are required.
type Options struct {
	Hostname string // of this server
	// Load returns what Save was last given, nil if nothing was.
	Load func() ([]byte, error)
	Save func(data []byte) error
	Now  func() time.Time
	Log  *slog.Logger
}

// A Send sends a digest to the postmaster of a domain, or finds that nobody is there who wants it: that
// is no error. After an error it is tried again. It is called by one goroutine at a time.
type Send func(domain string, text []byte) error

// A Book keeps what is to be told. Make one with Open; it is safe for concurrent use.
type Book struct {
	opt Options

	mu    sync.Mutex // guards the rest
	pages map[string]*page
	dirty bool // there is more, or less, than on disk
}

// A page is what the next digest of a domain tells.
type page struct {
	Since  time.Time `json:"since"` // of the first entry
	Groups []group   `json:"groups"`
	More   int       `json:"more,omitempty"` // entries that no group has room for
	tried  time.Time // when it could not be sent
}

// A group is what failed alike.
type group struct {
	Alias  string `json:"alias"`
	Target string `json:"target"`
	Code   string `json:"code"`  // of the reply, with the enhanced one where it has one
	Reply  string `json:"reply"` // the last one
	Mails  []mail `json:"mails"`
	More   int    `json:"more,omitempty"` // that are not among Mails
}

// A mail is a message that one group is about.
type mail struct {
	ID     string    `json:"id"`
	Sender string    `json:"sender"`
	At     time.Time `json:"at"`
}

// Open goes on with what was noted before the last end. State that is damaged is forgotten, which the
// log tells.
func Open(opt Options) *Book {
	b := &Book{opt: opt, pages: map[string]*page{}}
	data, err := opt.Load()
	if err == nil && data != nil {
		err = json.Unmarshal(data, &b.pages)
	}
	if err != nil {
		opt.Log.Warn("what was to be told in the next digests is forgotten", "error", err.Error())
	}
	if err != nil || b.pages == nil {
		b.pages = map[string]*page{}
	}
	maps.DeleteFunc(b.pages, func(_ string, p *page) bool { return p == nil })
	return b
}

// Note keeps e for the next digest of its alias's domain, which has to be a hosted one.
func (b *Book) Note(e Entry) {
	now := b.opt.Now().UTC().Truncate(time.Second)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dirty = true
	p := b.pages[e.Alias.Domain]
	if p == nil {
		p = &page{Since: now}
		b.pages[e.Alias.Domain] = p
	}
	p.note(e, now)
}

func (p *page) note(e Entry, now time.Time) {
	fresh := group{Alias: line(e.Alias.String()), Target: line(e.Target.String()), Reply: line(e.Reply)}
	fresh.Code = code(fresh.Reply)
	lines, g := 0, (*group)(nil)
	for i := range p.Groups {
		lines += groupLines + len(p.Groups[i].Mails)
		if p.Groups[i].isLike(&fresh) {
			g = &p.Groups[i]
		}
	}
	switch {
	case g == nil && lines+groupLines+1 > maxLines:
		p.More++
		return
	case g == nil:
		p.Groups = append(p.Groups, fresh)
		g = &p.Groups[len(p.Groups)-1]
	case lines+1 > maxLines || len(g.Mails) >= maxMails:
		g.More++
		return
	}
	g.Reply = fresh.Reply
	g.Mails = append(g.Mails, mail{line(e.ID), line(e.Sender.String()), now})
}

// isLike reports whether two failures are told as one: replies of one kind often hold the time, or a name
// for the session.
func (g *group) isLike(o *group) bool {
	return g.Code == o.Code && g.Target == o.Target && strings.EqualFold(g.Alias, o.Alias)
}

// code is a reply's code with the enhanced one, where it has one.
func code(reply string) string {
	words := strings.SplitN(reply, " ", 3)
	if len(words) > 1 && strings.Count(words[1], ".") == 2 {
		return words[0] + " " + words[1]
	}
	return words[0]
}

// line makes what others said fit for a part of a line.
func line(s string) string { return message.OneLine(s[:min(len(s), 10*maxText)], maxText) }

// Run sends digests when they are due and saves what was noted, until ctx ends. Close saves the rest.
func (b *Book) Run(ctx context.Context, send Send) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		b.sendDue(send)
		b.Close()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Close saves what was noted. It may be called more than once, but not while Run runs.
func (b *Book) Close() {
	b.mu.Lock()
	var data []byte
	var err error
	if b.dirty {
		data, err = json.Marshal(b.pages)
		b.dirty = false
	}
	b.mu.Unlock()
	if err == nil && data != nil {
		err = b.opt.Save(data)
	}
	if err != nil {
		b.opt.Log.Warn("what is to be told in the next digests is not saved", "error", err.Error())
		b.mu.Lock()
		b.dirty = true
		b.mu.Unlock()
	}
}

func (b *Book) sendDue(send Send) {
	now := b.opt.Now()
	for domain, p := range b.takeDue(now) {
		if err := send(domain, p.format(domain, b.opt.Hostname, now)); err != nil {
			b.opt.Log.Warn("a digest cannot be sent now", "domain", domain, "error", err.Error())
			b.putBack(domain, p, now)
		}
	}
}

// takeDue takes out the pages whose time has come.
func (b *Book) takeDue(now time.Time) map[string]*page {
	b.mu.Lock()
	defer b.mu.Unlock()
	due := map[string]*page{}
	for domain, p := range b.pages {
		if p.Since.After(now) { // the clock was wrong then
			p.Since = now
		}
		if now.Before(slot(domain, p.Since)) || now.Sub(p.tried) < retryAfter {
			continue
		}
		due[domain] = p
		delete(b.pages, domain)
		b.dirty = true
	}
	return due
}

// putBack keeps a page for another try. What was noted since it was taken out is only counted.
func (b *Book) putBack(domain string, p *page, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.tried = now
	if newer := b.pages[domain]; newer != nil {
		p.More += newer.total()
	}
	b.pages[domain] = p
}

// total is how many entries there are.
func (p *page) total() int {
	n := p.More
	for _, g := range p.Groups {
		n += len(g.Mails) + g.More
	}
	return n
}

// slot is the first moment after t at which a digest of domain is sent: once a day, domains apart from
// each other by up to an hour.
func slot(domain string, t time.Time) time.Time {
	const day = 24 * time.Hour
	h := fnv.New32a()
	h.Write([]byte(domain))
	at := t.UTC().Truncate(day).Add(sendAt + time.Duration(h.Sum32()%60)*time.Minute)
	if !at.After(t) {
		at = at.Add(day)
	}
	return at
}
