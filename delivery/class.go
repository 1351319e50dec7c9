package delivery

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"relayd/reply"
)

// A Stage is where in a session a reply was given.
type Stage uint8

// The stages, in their order. From AtMail on a reply is about a message; before, about us.
const (
	AtGreeting Stage = iota
	AtEHLO           // and HELO
	AtSTARTTLS
	AtAuth // of a smarthost: mail exchangers ask for none
	AtMail
	AtRcpt
	AtData
	AtDot // the answer to the message itself
)

// A Fate is what becomes of a message.
type Fate uint8

const (
	// Later is tried again by the usual spacing. It is the zero Fate, for a doubt costs least so.
	Later Fate = iota
	Accepted
	// Final has failed for good: the sender is told.
	Final
	// Hold is nothing that the sender could mend: the admin is told at once, and it is tried
	// every few hours.
	Hold
)

// String is for the log.
func (f Fate) String() string { return [...]string{"later", "accepted", "final", "hold"}[f] }

// A Verdict is what follows from a reply. Whoever acts upon it needs to know no code of any server.
type Verdict struct {
	Class Class // for the log and the status page: nothing follows from it that does not stand below
	Fate  Fate
	// Attempts is after how many in all Later turns into Final; 0: the lifetime decides.
	Attempts int
	// Rewrite says that a message which passed DMARC here may be taken if its From is rewritten to
	// one of ours: at once, once. Fate is for where that is not done, or was.
	Rewrite bool
	// Again says that it is worth trying at once in a transaction with fewer recipients. Fate is
	// for a recipient that was alone.
	Again bool
	// NextHost says that the reply was about the session: the domain's next host comes first, and
	// Fate is for when there is none. Rate and reputation are ours at all hosts, as is a login.
	NextHost bool
	// IPv4 says that a reply given over IPv6 may be another over IPv4: it is tried at once, and
	// remembered for the host group. Fate is for where there is no IPv4, or it was in use.
	IPv4 bool
	// Strained says that the host group bears fewer connections at once.
	Strained bool
	// Stop is for how long at least nothing is sent to the host group. Then one connection finds
	// out, and one is added at a time. With it Strained is set.
	Stop time.Duration
	// MailboxPerMinute is how many messages a minute the mailbox gets at most until it takes one
	// again; 0: this reply says nothing about that.
	MailboxPerMinute int
	// Suspect says that the message counts against the server that it came from.
	Suspect bool
	// Advice is what the admin is told, in a sentence or two that say what to do; "" if nothing.
	Advice string
	// AliasOnly says that Advice is of use only where the recipient stands behind an alias.
	AliasOnly bool
}

// stops reports whether the host group is left alone for now: more of us at once makes it worse.
func (v Verdict) stops() bool { return v.Stop > 0 || v.Class == ClassReputation }

// MailboxPace is how many messages a minute one mailbox at provider gets at most, whatever it
// replies; 0: no bound is known. Google locks a mailbox that gets more than 60 a minute or 3,600
// an hour, for up to a day. The provider is the registrable domain of the
// server's name in lower case.
func MailboxPace(provider string) int {
	if isOneOf(google, provider) {
		return googlePerMinute
	}
	return 0
}

// classify says what follows from a server's own reply, given at that stage. The provider is the
// registrable domain of the server's name in lower case, such as "google.com"; "" if not known.
// Replies that delivery made itself fare by their codes. Case and spacing of the text do not
// matter, nor do bytes past the length that delivery keeps of a reply.
func classify(r *reply.Reply, at Stage, provider string) Verdict {
	if r.Positive() {
		return Verdict{Class: ClassAccepted, Fate: Accepted}
	}
	s := hear(r, at, provider)
	v := consequences[ClassUnknown]
	if i := slices.IndexFunc(replyRules, s.meets); i >= 0 {
		v = replyRules[i].verdict()
	}
	if at < AtMail {
		return s.early(v)
	}
	return s.bounded(v)
}

// A saying is a reply made easy to match.
type saying struct {
	code     int
	codes    [2]string // the enhanced and the basic one: whichever rules go by, the other is ""
	text     string    // in lower case, single spaces
	at       Stage
	provider string
}

func hear(r *reply.Reply, at Stage, provider string) *saying {
	s := &saying{code: r.Code, at: at, provider: provider, text: plain(r.Text)}
	if s.codes[0] = enhancedIn(r, s.text); s.codes[0] == "" {
		s.codes[1] = strconv.Itoa(r.Code)
	}
	return s
}

// plain is text in lower case, with single spaces, cut at the length of a kept reply.
func plain(text string) string {
	var b strings.Builder
	for word := range strings.FieldsSeq(text) {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		if b.WriteString(word); b.Len() >= maxReplyText {
			break
		}
	}
	return strings.ToLower(b.String()[:min(b.Len(), maxReplyText)])
}

// enhancedIn is the enhanced code with the class of the basic one, which RFC 5321 lets decide:
// Google has "421 5.7.32". Some servers put it elsewhere, as qmail in "no such mailbox (#5.1.1)".
func enhancedIn(r *reply.Reply, text string) string {
	if code := asClass(r.Code, r.Enhanced); code != "" {
		return code
	}
	first := true
	for word := range strings.FieldsSeq(text) {
		if first || strings.Contains(word, "#") {
			if code := asClass(r.Code, strings.Trim(word, "()[]<>#:;,.=-")); code != "" {
				return code
			}
		}
		first = false
	}
	return ""
}

// asClass is the enhanced code word with the class of code; "" if it is not one.
func asClass(code int, word string) string {
	if word == "" {
		return ""
	}
	enhanced, _ := reply.SplitEnhanced(100*int(word[0]-'0'), word)
	if enhanced == "" {
		return ""
	}
	return strconv.Itoa(code/100) + enhanced[1:]
}

// meets reports whether rule is for s.
func (s *saying) meets(rule replyRule) bool {
	if rule.by != "" && !isOneOf(rule.by, s.provider) || rule.rcpt && s.at != AtRcpt {
		return false
	}
	return s.hasCode(rule.codes) && (rule.text == "" || s.contains(rule.text))
}

// hasCode reports whether one of the codes in patterns, where "?" is any digit, is that of s.
func (s *saying) hasCode(patterns string) bool {
	for p := range strings.FieldsSeq(patterns) {
		if alike(p, s.codes[0]) || alike(p, s.codes[1]) {
			return true
		}
	}
	return patterns == ""
}

func alike(pattern, code string) bool {
	if len(pattern) != len(code) {
		return false
	}
	for i := range len(code) {
		if pattern[i] != '?' && pattern[i] != code[i] {
			return false
		}
	}
	return true
}

// contains reports whether one of phrases, which "|" parts, is in the text; "*" in a phrase stands
// for anything.
func (s *saying) contains(phrases string) bool {
	for phrase := range strings.SplitSeq(phrases, "|") {
		rest, found := s.text, true
		for part := range strings.SplitSeq(phrase, "*") {
			if _, rest, found = strings.Cut(rest, part); !found {
				break
			}
		}
		if found {
			return true
		}
	}
	return false
}

func isOneOf(names, name string) bool {
	for n := range strings.FieldsSeq(names) {
		if n == name {
			return true
		}
	}
	return false
}

// verdict is that of the rule's class, with what the rule knows better.
func (rule replyRule) verdict() Verdict {
	v := consequences[rule.class]
	if rule.stop > 0 {
		v.Stop = rule.stop
	}
	if rule.advice != "" {
		v.Advice, v.AliasOnly = rule.advice, false
	}
	v.Suspect = v.Suspect || rule.suspect
	return v
}

// permanent is whether the server means it: a code that is no SMTP is none to give up for.
func (s *saying) permanent() bool { return s.code >= 500 && s.code <= 599 }

// bounded holds v to what a reply's code allows: only a 5xx can be final.
func (s *saying) bounded(v Verdict) Verdict {
	switch {
	case s.permanent() || v.Fate != Final:
		v.Attempts = 0
	default:
		v.Fate = Later
		if v.AliasOnly { // the alias may be right
			v.Advice, v.AliasOnly = "", false
		}
	}
	if s.code == 421 && (v.Class == ClassUnknown || v.Class == ClassPassing) {
		v.Strained = true // RFC 5321 section 3.8: it is the service that ends, not the command
	}
	return v
}

// early is the verdict before MAIL, where a server knows nothing yet that the message is to blame
// for: another host may take it, or this one later.
func (s *saying) early(v Verdict) Verdict {
	if s.at == AtAuth && s.permanent() {
		return consequences[ClassLogin]
	}
	if !v.Class.isAboutUs() {
		v = consequences[ClassUnknown]
	}
	v = s.bounded(v)
	if v.Fate == Final {
		v.Fate = Later
	}
	v.NextHost, v.Suspect, v.Attempts = !v.stops(), false, 0
	return v
}
