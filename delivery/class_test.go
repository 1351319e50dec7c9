package delivery

import (
	"encoding/json"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/publicsuffix"

	"relayd/reply"
)

// parseReply reads a reply as bounces quote it, on one line, the code and the enhanced code of
// each line of it still in between.
func parseReply(t testing.TB, line string) *reply.Reply {
	t.Helper()
	code, err := strconv.Atoi(line[:3])
	if err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	enhanced, text := reply.SplitEnhanced(code, strings.TrimSpace(line[4:]))
	for _, between := range []string{line[:3] + "-" + enhanced + " ", line[:3] + " " + enhanced + " "} {
		if enhanced != "" {
			text = strings.ReplaceAll(text, between, "")
		}
	}
	return &reply.Reply{Code: code, Enhanced: enhanced, Text: text}
}

// providerOf is what delivery would call the host of the corpus.
func providerOf(host string) string {
	p, err := publicsuffix.EffectiveTLDPlusOne(strings.TrimSuffix(host, "."))
	if err != nil {
		return ""
	}
	return p
}

// A listedReply is one of Google's page.
type listedReply struct {
	reply *reply.Reply
	at    Stage
}

// googleReplies reads the table as it was printed: codes in a column of their own, on the middle
// line of the text beside them, or the one above the middle.
func googleReplies(t testing.TB, page string) []listedReply {
	t.Helper()
	table, _, _ := strings.Cut(page, "Send feedback")
	lines := strings.Split(strings.TrimRight(table, "\n"), "\n")
	var list []listedReply
	for len(lines) > 0 {
		if strings.TrimSpace(lines[0]) == "" {
			lines = lines[1:]
			continue
		}
		mid := 0
		for mid < len(lines) && (lines[mid] == "" || lines[mid][0] == ' ') {
			mid++
		}
		if mid == len(lines) {
			t.Fatalf("no code behind %q", lines)
		}
		codes := strings.Fields(lines[mid])
		code, err := strconv.Atoi(codes[0])
		if err != nil {
			t.Fatalf("%q: %v", lines[mid], err)
		}
		end := min(2*mid+1, len(lines))
		last := strings.TrimSpace(lines[end-1])
		if end < len(lines) && (strings.Trim(last, ".?") == last && last != "" || strings.HasPrefix(strings.TrimSpace(lines[end]), "For more")) {
			end++
		}
		var text strings.Builder
		for _, l := range lines[:end] {
			text.WriteString(l[min(13, len(l)):] + "\n")
		}
		r := &reply.Reply{Code: code, Text: text.String()}
		if r.Enhanced, _ = reply.SplitEnhanced(code, codes[1]); r.Enhanced == "" {
			r.Text = codes[1] + " " + r.Text
		}
		at := AtDot
		switch code {
		case 454, 504, 534, 535:
			at = AtAuth
		case 452:
			at = AtRcpt
		case 501:
			if codes[1] == "5.5.4" {
				at = AtEHLO
			}
		}
		list, lines = append(list, listedReply{r, at}), lines[end:]
	}
	return list
}

// A classified reply is a line of testdata/replies.tsv.
type classified struct {
	class, provider string
	at              Stage
	reply           *reply.Reply
}

var stageNames = []string{"greeting", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "dot"}

func knownReplies(t testing.TB) []classified {
	t.Helper()
	file, err := os.ReadFile("testdata/replies.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var list []classified
	for line := range strings.Lines(string(file)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(strings.TrimSpace(line), "\t")
		at := slices.Index(stageNames, f[1])
		if at < 0 {
			t.Fatalf("%q: no such stage", line)
		}
		list = append(list, classified{f[0], strings.Trim(f[2], "-"), Stage(at), parseReply(t, f[3])})
	}
	return list
}

// Every rule is there for a reply: one that no reply comes to stands behind a wider one.
func TestReplyClasses(t *testing.T) {
	met := make([]bool, len(replyRules))
	for _, k := range knownReplies(t) {
		if got := classify(k.reply, k.at, k.provider).Class; got.String() != k.class {
			t.Errorf("%s at %s by %q: %v, want %s", k.reply, stageNames[k.at], k.provider, got, k.class)
		}
		if i := slices.IndexFunc(replyRules, hear(k.reply, k.at, k.provider).meets); i >= 0 {
			met[i] = true
		}
	}
	for i, rule := range replyRules {
		if !met[i] {
			t.Errorf("no reply comes to rule %+v", rule)
		}
	}
}

func TestReplyRulesAreWellFormed(t *testing.T) {
	for _, rule := range replyRules {
		for phrase := range strings.SplitSeq(rule.text, "|") {
			if strings.Trim(phrase, " ") == "" && rule.text != "" || plain(phrase) != strings.TrimLeft(phrase, " ") {
				t.Errorf("%+v: nothing can contain %q", rule, phrase)
			}
		}
		for code := range strings.FieldsSeq(rule.codes) {
			if strings.Trim(code, "0123456789.?") != "" || len(code) != 3 && strings.Count(code, ".") != 2 {
				t.Errorf("%+v: %q is no code", rule, code)
			}
		}
		if v := rule.verdict(); v.Class != rule.class || v.Stop > 0 && !v.Strained || v.Fate == Hold && v.Advice == "" {
			t.Errorf("%+v: %+v", rule, v)
		}
	}
}

// The rows of the table in GMAIL.md, with what it says we do.
func TestAnswersFromGoogle(t *testing.T) {
	rate := Verdict{Class: ClassRate, Strained: true, Stop: 10 * time.Minute, Advice: adviseRate}
	reverse := Verdict{Class: ClassReverseDNS, Fate: Hold, IPv4: true, Advice: adviseReverse}
	setup := func(advice string) Verdict { return Verdict{Class: ClassSetup, Fate: Hold, Advice: advice} }
	content := Verdict{Class: ClassContent, Fate: Final, Suspect: true}
	gone := Verdict{Class: ClassNoMailbox, Fate: Final, Advice: adviseGone, AliasOnly: true}
	full := Verdict{Class: ClassMailboxFull, MailboxPerMinute: 1}
	unfit := Verdict{Class: ClassUnfit, Fate: Final}
	suspicious := Verdict{Class: ClassReputation, Attempts: 6, Suspect: true}
	tests := []struct {
		row, reply string
		want       Verdict
	}{
		{"421 4.7.28 rate", "421 4.7.28 unusual rate originating from your IP Netblock", rate},
		{"421 4.7.0 low reputation", "421 4.7.0 suspicious due to the very low reputation", suspicious},
		{"421 4.7.0 suspicious", "421 4.7.0 suspicious due to the links within", suspicious},
		{"4.7.23 reverse DNS", "451 4.7.23 x", reverse},
		{"5.7.25 reverse DNS", "550 5.7.25 x", reverse},
		{"421 4.7.0 PTR", "421 4.7.0 does not have a PTR record", reverse},
		{"4.7.26 unauthenticated", "421 4.7.26 unauthenticated", Verdict{Class: ClassUnauthenticated, Rewrite: true, Advice: adviseAuth}},
		{"550 5.7.1 IPv6 guidelines", "550 5.7.1 does not meet IPv6 sending guidelines", Verdict{Class: ClassIPv6, Fate: Hold, IPv4: true, Advice: adviseIPv6}},
		{"4.7.26 DMARC", "421 4.7.26 domain's DMARC policy", Verdict{Class: ClassUnauthenticated, Rewrite: true}},
		{"5.7.26 DMARC", "550 5.7.26 domain's DMARC policy", Verdict{Class: ClassUnauthenticated, Fate: Final, Rewrite: true}},
		{"5.7.26 unauthenticated", "550 5.7.26 unauthenticated", Verdict{Class: ClassUnauthenticated, Fate: Final, Rewrite: true, Advice: adviseAuth}},
		{"4.7.27 SPF", "421 4.7.27 x", setup(adviseSPF)},
		{"5.7.27 SPF", "550 5.7.27 x", setup(adviseSPF)},
		{"4.7.29 TLS", "421 4.7.29 x", setup(adviseTLS)},
		{"4.7.30 DKIM", "421 4.7.30 x", setup(adviseDKIM)},
		{"5.7.32 alignment", "421 5.7.32 x", setup(adviseAlign)},
		{"4.7.40 DMARC record", "421 4.7.40 x", setup(adviseDMARC)},
		{"550 5.7.1 unsolicited", "550 5.7.1 likely unsolicited email", content},
		{"552 5.7.0 content", "552 5.7.0 its content presents a potential security issue", content},
		{"450 4.2.1 mailbox too busy", "450 4.2.1 x", Verdict{Class: ClassMailboxBusy, MailboxPerMinute: 10}},
		{"452 4.2.2 mailbox full", "452 4.2.2 x", full},
		{"552 5.2.2 mailbox full", "552 5.2.2 x", full},
		{"550 5.1.1 no such mailbox", "550 5.1.1 x", gone},
		{"550 5.2.1 disabled", "550 5.2.1 x", gone},
		{"550 5.7.1 headers", "550 5.7.1 Messages with multiple addresses in From: header are not accepted", unfit},
		{"552 5.3.4 size", "552 5.3.4 x", unfit},
		{"554 5.4.6 loop", "554 5.4.6 x", unfit},
		{"451 4.3.0 multiple destination domains", "451 4.3.0 Multiple destination domains per transaction", Verdict{Class: ClassRecipients, Again: true}},
		{"unknown 4xx", "451 4.9.9 x", Verdict{}},
		{"unknown 5xx", "554 5.9.9 x", Verdict{Fate: Final}},
	}
	for _, tt := range tests {
		t.Run(tt.row, func(t *testing.T) {
			if got := classify(parseReply(t, tt.reply), AtDot, "google.com"); got != tt.want {
				t.Errorf("got  %+v\nwant %+v", got, tt.want)
			}
		})
	}
}

// A no before MAIL is for the session: nothing is final, and nothing is known of the message.
func TestRepliesBeforeMail(t *testing.T) {
	tests := []struct {
		at    Stage
		reply string
		want  Verdict
	}{
		{AtGreeting, "554 No SMTP service here", Verdict{NextHost: true}},
		{AtGreeting, "421 Goodbye", Verdict{Class: ClassBusy, NextHost: true, Strained: true}},
		{AtGreeting, "421 4.9.9 Goodbye", Verdict{NextHost: true, Strained: true}},
		{AtGreeting, "421 Try again later", Verdict{Class: ClassPassing, NextHost: true, Strained: true}},
		{AtGreeting, "421 4.7.1 Greylisted", Verdict{Class: ClassGreylisted, NextHost: true}},
		{AtGreeting, "554 5.7.1 blocked using zen.spamhaus.org", Verdict{Class: ClassListed, Fate: Hold, NextHost: true, Advice: adviseListed}},
		{AtEHLO, "550 5.7.1 virus found", Verdict{NextHost: true}},
		{AtEHLO, "550 5.1.1 user unknown", Verdict{NextHost: true}},
		{AtSTARTTLS, "454 4.7.0 TLS is not available, try later", Verdict{Class: ClassPassing, NextHost: true}},
		{AtSTARTTLS, "501 5.5.4 No", Verdict{NextHost: true}},
		{AtAuth, "454 4.7.0 Try again later", Verdict{Class: ClassPassing, NextHost: true}},
		{AtAuth, "535 5.7.8 Wrong password", Verdict{Class: ClassLogin, Fate: Hold, Advice: adviseLogin}},
		{AtAuth, "550 5.1.1 user unknown", Verdict{Class: ClassLogin, Fate: Hold, Advice: adviseLogin}},
	}
	for _, tt := range tests {
		if got := classify(parseReply(t, tt.reply), tt.at, ""); got != tt.want {
			t.Errorf("%s at %s:\ngot  %+v\nwant %+v", tt.reply, stageNames[tt.at], got, tt.want)
		}
	}
}

func TestMailboxPace(t *testing.T) {
	for provider, want := range map[string]int{"google.com": 40, "outlook.com": 0, "": 0} {
		if got := MailboxPace(provider); got != want {
			t.Errorf("%q: %d", provider, got)
		}
	}
}

func TestClassInJSON(t *testing.T) {
	got, err := json.Marshal(map[string]any{"class": ClassReverseDNS})
	if err != nil || string(got) != `{"class":"reverse-dns"}` {
		t.Error(string(got), err)
	}
	for c := range classes {
		if c.String() == "" || consequences[c].Class != c && c != ClassAccepted {
			t.Errorf("class %d is %q and leads to %v", c, c, consequences[c].Class)
		}
	}
}

// An expectation is for the replies that begin with a code and hold a keyword.
type expectation struct {
	code, keyword string
	class         Class
}

func expected(list []expectation, r *reply.Reply) Class {
	text := strings.ToLower(strings.Join(strings.Fields(r.String()), " "))
	for _, e := range list {
		if strings.HasPrefix(text, e.code) && strings.Contains(text, e.keyword) {
			return e.class
		}
	}
	return ClassUnknown
}

var expectedOfGoogle = []expectation{
	{"421 4.3.0", "", ClassPassing}, {"451 4.4.2", "", ClassPassing}, {"421 4.4.5", "", ClassBusy}, {"451 4.5.0", "", ClassProtocol},
	{"452 4.5.3", "", ClassRecipients}, {"421 4.7.0", "expired", ClassPassing}, {"421 4.7.0", "whitelist", ClassPolicy},
	{"421 4.7.0", "try again later", ClassBusy}, {"421 4.7.0", "ptr record", ClassReverseDNS}, {"421 4.7.0", "tls required", ClassSetup},
	{"421 4.7.0", "suspicious", ClassReputation}, {"454 4.7.0", "", ClassPassing}, {"451 4.7.23", "", ClassReverseDNS},
	{"451 4.7.24", "", ClassSetup}, {"451 4.7.26", "temporary dns", ClassPassing}, {"421 4.7.26", "", ClassUnauthenticated},
	{"421 4.7.27", "", ClassSetup}, {"421 4.7.28", "same message-id", ClassBusy}, {"421 4.7.28", "", ClassRate},
	{"421 4.7.29", "", ClassSetup}, {"421 4.7.30", "", ClassSetup}, {"421 4.7.32", "", ClassSetup}, {"421 5.7.32", "", ClassSetup},
	{"421 4.7.40", "", ClassSetup}, {"550 5.1.1", "", ClassNoMailbox}, {"553 5.1.2", "", ClassNotServed}, {"553 5.1.3", "", ClassNoMailbox},
	{"553 5.1.7", "", ClassSender}, {"550 5.2.1", "at a rate", ClassMailboxBusy}, {"550 5.2.1", "inactive", ClassNoMailbox},
	{"552 5.2.2", "", ClassMailboxFull}, {"552 5.3.4", "", ClassUnfit}, {"550 5.4.5", "", ClassRate}, {"554 5.4.6", "", ClassUnfit},
	{"50", "helo/ehlo argument", ClassSetup}, {"50", "5.5.", ClassProtocol}, {"555 5.5.2", "", ClassProtocol},
	{"550 5.5.3", "", ClassRecipients}, {"554 5.6.0", "", ClassUnfit}, {"552 5.7.0", "", ClassContent}, {"503 5.7.0", "", ClassProtocol},
	{"550 5.7.0", "denied", ClassSetup}, {"554 5.7.0", "", ClassProtocol}, {"530 5.7.0", "authentication required", ClassLogin},
	{"530 5.7.0", "starttls", ClassSetup}, {"523 5.7.10", "", ClassProtocol}, {"501 5.7.11", "", ClassProtocol},
	{"53", "5.7.", ClassLogin}, {"504 5.7.40", "", ClassLogin}, {"550 5.7.24", "", ClassSetup}, {"550 5.7.25", "", ClassReverseDNS},
	{"550 5.7.26", "hard fail", ClassSetup}, {"550 5.7.26", "", ClassUnauthenticated}, {"550 5.7.27", "", ClassSetup},
	{"550 5.7.28", "", ClassRate}, {"550 5.7.29", "", ClassSetup}, {"550 5.7.30", "", ClassSetup}, {"550 5.7.40", "", ClassSetup},
	{"550 5.7.1 ", "policy that prohibits", ClassPolicy}, {"550 5.7.1 ", "credentials", ClassSetup}, {"550 5.7.1 ", "unsolicited", ClassContent},
	{"550 5.7.1 ", "ipv6", ClassIPv6}, {"550 5.7.1 ", "low reputation", ClassReputation}, {"550 5.7.1 ", "header", ClassUnfit},
	{"550 5.7.1 ", "rate limited", ClassRate}, {"550 5.7.1 ", "directly", ClassListed}, {"550 5.7.1 ", "daily", ClassRate},
}

// Every reply on the page is known.
func TestGoogleReplyCorpus(t *testing.T) {
	page, err := os.ReadFile("../../shared/corpus/google-smtp-replies.txt")
	if err != nil {
		t.Logf("SKIP corpus: %v; testdata covers the same rules", err)
		return
	}
	list := googleReplies(t, string(page))
	if len(list) < 115 {
		t.Errorf("only %d replies", len(list))
	}
	for _, l := range list {
		want := expected(expectedOfGoogle, l.reply)
		if got := classify(l.reply, l.at, "google.com").Class; got != want || got == ClassUnknown {
			t.Errorf("%s: %v, want %v", l.reply, got, want)
		}
	}
}

var expectedOfOthers = []expectation{
	{"2", "", ClassAccepted}, {"421 4.7.0", "[tss04]", ClassRate}, {"4", "timed out", ClassPassing}, {"450 4.0.0", "", ClassPassing},
	{"450", "name lookup", ClassReverseDNS}, {"452 4.3.2", "", ClassBusy}, {"501 5.1.8", "", ClassSender}, {"553 5.1.8", "", ClassSender},
	{"521", "dnsbl", ClassListed}, {"550 5.1.0", "spf", ClassSetup}, {"550 5.1.0", "aup#", ClassListed}, {"550 5.1.1", "this hour", ClassRate},
	{"550 5.1.1", "preferences", ClassPolicy}, {"550 5.1.", "", ClassNoMailbox}, {"550 5.2.1", "", ClassNoMailbox}, {"55", "5.2.2", ClassMailboxFull},
	{"55", "5.2.3", ClassUnfit}, {"550 5.4.1 ", "access denied", ClassNoMailbox}, {"550 5.7.1", "temporary locked", ClassMailboxBusy},
	{"550 5.7.1", "reverse dns", ClassReverseDNS}, {"5", "blacklisted", ClassListed}, {"5", "content rejected", ClassContent},
	{"550 5.7.1", "authrequired", ClassPolicy}, {"550 5.7.1", "access denied", ClassPolicy}, {"5", "dmarc", ClassUnauthenticated},
	{"550 5.7.1", "purported", ClassUnfit}, {"550 5.7.1", "multiple addresses", ClassUnfit}, {"554 5.7.9", "", ClassUnauthenticated},
	{"5", "frequency limited", ClassRate}, {"5", "does not accept mail", ClassNotServed}, {"5", "host unknown", ClassNotServed},
	{"5", "smtp authentication", ClassNotServed}, {"551", "customer", ClassNotServed}, {"551", "not our user", ClassNoMailbox},
	{"552", "too many recipients", ClassRecipients}, {"552 5.6.0", "", ClassUnfit}, {"552 5.7.0", "", ClassContent}, {"554 5.7.7", "", ClassPolicy},
	{"55", "client host", ClassListed}, {"554", "dnsbl", ClassListed}, {"554", "not verified", ClassSender}, {"554", "not reachable", ClassNotServed},
	{"554", "spam", ClassContent}, {"525", "disabled", ClassNoMailbox}, {"55", "", ClassNoMailbox},
}

// unknownInCorpus are the replies that no rule knows: they say nothing, or are a queue's own words.
var unknownInCorpus = []string{"451 Could not load DRD", "542 ", "550 5.4.316 Message expired", "554 4.4.7 Message expi"}

func TestReplyCorpus(t *testing.T) {
	file, err := os.ReadFile("../../shared/corpus/real-smtp-replies.tsv")
	if err != nil {
		t.Logf("SKIP corpus: %v; testdata covers the same rules", err)
		return
	}
	for line := range strings.Lines(string(file)) {
		host, said, _ := strings.Cut(strings.TrimSpace(line), "\t")
		r, want := parseReply(t, said), ClassUnknown
		if !slices.ContainsFunc(unknownInCorpus, func(u string) bool { return strings.HasPrefix(r.String(), u) }) {
			want = expected(expectedOfOthers, r)
		}
		v := classify(r, AtRcpt, providerOf(host))
		if v.Class != want {
			t.Errorf("%s: %s: %v, want %v", host, said, v.Class, want)
		}
		if v.Fate == Final != (r.Permanent() && v.Fate != Hold && v.Fate != Later) || v.Fate == Accepted != r.Positive() {
			t.Errorf("%s: %s: %v", host, said, v.Fate)
		}
	}
}

// swapCase changes the case of ASCII letters and the spacing of words, none of which may matter.
func swapCase(s string) string {
	swapped := strings.Map(func(c rune) rune {
		switch {
		case 'a' <= c && c <= 'z':
			return c - 'a' + 'A'
		case 'A' <= c && c <= 'Z':
			return c - 'A' + 'a'
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
	return " \t" + strings.Join(strings.Fields(swapped), "\n  ") + "  "
}

func FuzzClassify(f *testing.F) {
	for _, k := range knownReplies(f) {
		f.Add(k.reply.Code, k.reply.Enhanced, k.reply.Text, uint8(k.at), k.provider)
	}
	f.Add(550, "5.7", "5.1.1\xff *|?", uint8(AtDot), "|")
	f.Fuzz(func(t *testing.T, code int, enhanced, text string, stage uint8, provider string) {
		at := Stage(stage) % (AtDot + 1)
		r := &reply.Reply{Code: code, Enhanced: enhanced, Text: strings.ToValidUTF8(text, "?")}
		v := classify(r, at, provider)
		switch {
		case r.Positive() != (v.Fate == Accepted) || r.Positive() != (v.Class == ClassAccepted):
			t.Errorf("%s: %+v", r, v)
		case v.Fate == Final && (at < AtMail || code < 500 || code > 599):
			t.Errorf("final at %s: %s", stageNames[at], r)
		case at < AtMail && (v.Rewrite || v.Again || v.Suspect || v.MailboxPerMinute > 0):
			t.Errorf("at %s the message is blamed: %s: %+v", stageNames[at], r, v)
		case v.Stop > 0 && !v.Strained, v.Fate == Hold && v.Advice == "", v.Attempts > 0 && v.Fate != Later:
			t.Errorf("%s: %+v", r, v)
		}
		other := &reply.Reply{Code: code, Enhanced: enhanced, Text: swapCase(text)}
		if got := classify(other, at, provider); got != v {
			t.Errorf("%q: %+v\n%q: %+v", text, v, other.Text, got)
		}
		r.Text = text // as no reply stands that delivery reads, but none may harm
		classify(r, at, provider)
	})
}
