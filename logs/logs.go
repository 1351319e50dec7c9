// Package logs keeps out of the log what an admin does not want to have there: a slog.Handler that
// stands in front of the one that writes. What a level of privacy forbids is never handed on, neither
// in attributes and messages nor inside the texts of errors, replies of other servers and panics.
//
// Attributes of known names are judged by name. In every other text, IP addresses are found by how
// they are written, mailboxes by their "@" (RFC 5321 section 4.1.2, quoted local parts and SRS too),
// and what the attributes of the same line named, wherever it stands as a word: "User bob unknown". In doubt
// more is taken out than need be, never less. What is taken out becomes "…". Queue IDs stay, so that
// the lines of one message are still found.
package logs

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// Privacy says what is not written. Each level forbids what the one before it does, and more.
type Privacy string

// The levels, from the one that writes everything.
const (
	Full      Privacy = "full"
	NoIP      Privacy = "no-ip"      // no IP addresses
	NoAddress Privacy = "no-address" // of mailboxes the domain only
	None      Privacy = "none"       // neither mailboxes nor the domains and hosts of others
)

// mask stands for what is taken out.
const mask = "…"

// New returns a handler that hands records on to next without what p forbids. It may be used by
// several goroutines if next may be.
func New(next slog.Handler, p Privacy) slog.Handler {
	if p == Full {
		return next
	}
	return &handler{next: next, scrubber: newScrubber(p)}
}

type handler struct {
	next     slog.Handler
	scrubber *scrubber
	named    []string // words that the attributes of With named
}

// Enabled makes handler a slog.Handler.
func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle makes handler a slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	var attrs []slog.Attr
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, a)
		return true
	})
	l := line{h.scrubber, slices.Concat(h.named, h.scrubber.words(attrs))}
	out := slog.NewRecord(r.Time, r.Level, l.text(r.Message), r.PC)
	for _, a := range attrs {
		if a.Key == "address" && r.Message == "listening" {
			out.AddAttrs(a) // our own
			continue
		}
		out.AddAttrs(l.attr(a))
	}
	return h.next.Handle(ctx, out)
}

// WithAttrs makes handler a slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	named := slices.Concat(h.named, h.scrubber.words(attrs))
	l := line{h.scrubber, named}
	clean := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		clean[i] = l.attr(a)
	}
	return &handler{next: h.next.WithAttrs(clean), scrubber: h.scrubber, named: named}
}

// WithGroup makes handler a slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{next: h.next.WithGroup(name), scrubber: h.scrubber, named: h.named}
}

// A line is one record under way.
type line struct {
	*scrubber
	named []string // words that may stand nowhere in it
}

// text scrubs a text that may say anything.
func (l line) text(s string) string { return l.scrub(l.withoutWords(s, l.named)) }

// attr scrubs one attribute.
func (l line) attr(a slog.Attr) slog.Attr {
	a.Value = a.Value.Resolve()
	switch a.Value.Kind() {
	case slog.KindGroup:
		var group []slog.Attr
		for _, inner := range a.Value.Group() {
			group = append(group, l.attr(inner))
		}
		a.Value = slog.GroupValue(group...)
		return a
	case slog.KindString:
		a.Value = slog.StringValue(l.value(a.Key, a.Value.String()))
	case slog.KindAny:
		a.Value = l.any(a.Key, a.Value.Any())
	}
	return a
}

// any scrubs a value of any type, as the text that would be written of it. A list stays one.
func (l line) any(key string, v any) slog.Value {
	if v == nil {
		return slog.AnyValue(nil)
	}
	list, ok := v.([]string)
	if !ok {
		return slog.StringValue(l.value(key, fmt.Sprintf("%+v", v)))
	}
	clean := make([]string, len(list))
	for i, s := range list {
		clean[i] = l.value(key, s)
	}
	return slog.AnyValue(clean)
}

// value scrubs the value of an attribute by its name.
func (l line) value(key, s string) string {
	switch kindOf(key) {
	case client:
		return mask
	case person:
		return l.person(s)
	case place:
		if l.domains {
			return mask
		}
	case own:
		return l.scrubOwn(s)
	case code:
		return s
	case id:
		return l.scrub(s)
	}
	return l.text(s)
}

// A kind is what the attributes of a name are about.
type kind int

const (
	anything kind = iota
	client        // the IP address of whoever is connected
	person        // mailboxes of people
	place         // domains and hosts of others
	own           // names of this server, its files and certificates
	id            // queue IDs
	code          // where in the program: Go writes no text into a stack
)

func kindOf(key string) kind {
	switch key {
	case "client":
		return client
	case "from", "to", "user", "alias":
		return person
	case "helo", "host", "domain", "group", "mx", "message_id":
		return place
	case "hostname", "file", "files", "folder", "name", "names", "version", "service":
		return own
	case "id", "about":
		return id
	case "stack":
		return code
	}
	return anything
}

// words are what the attributes that are about people name, as it may stand alone in a text.
func (s *scrubber) words(attrs []slog.Attr) []string {
	var words []string
	for _, a := range attrs {
		v := a.Value.Resolve()
		switch {
		case v.Kind() == slog.KindGroup:
			words = append(words, s.words(v.Group())...)
		case kindOf(a.Key) == person && s.locals:
			list, ok := v.Any().([]string)
			if !ok {
				list = []string{v.String()}
			}
			for _, one := range list {
				words = append(words, s.wordsOf(one)...)
			}
		}
	}
	return words
}

// wordsOf are the local parts of mailboxes and, where those are private too, their domains.
func (s *scrubber) wordsOf(text string) []string {
	var words []string
	for _, path := range paths(text) {
		at := strings.LastIndexByte(path, '@')
		if at < 0 {
			words = append(words, path)
			continue
		}
		words = append(words, path[:at], unquoted(path[:at]))
		if name := path[at+1:]; s.domains && !strings.Contains(name, ".") {
			words = append(words, name) // any other is seen for what it is
		}
	}
	return slices.DeleteFunc(words, func(w string) bool { return w == "" })
}

// unquoted is a local part without its quotes and backslashes, right or wrong as they may be: here
// it is only a word to look for.
func unquoted(local string) string {
	inner, ok := strings.CutPrefix(local, `"`)
	if !ok {
		return local
	}
	inner = strings.TrimSuffix(inner, `"`)
	var b strings.Builder
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' && i+1 < len(inner) {
			i++
		}
		b.WriteByte(inner[i])
	}
	return b.String()
}
