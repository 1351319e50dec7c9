package mailauth

import (
	"fmt"
	"strings"
	"testing"

	"relayd/reply"
)

// code is what a message is answered in a mode; 0 for accepted.
func code(t testing.TB, v *Verdict, mode Mode) int {
	t.Helper()
	err := v.Disposition(mode)
	if err == nil {
		return 0
	}
	r, ok := err.(*reply.Reply)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	return r.Code
}

// A story is a message and what is made of it.
type story struct {
	zone    string   // besides the keys of the signers
	sender  string   // "" for <>
	from    string   // author
	signers []string // domains that sign
	want    string   // DMARC result, policy, what is aligned; SPF; answer in the mode Reject
}

func (s story) verdict(t testing.TB) *Verdict {
	zone := s.zone + "\n"
	for _, d := range s.signers {
		zone += keyLine(t, d)
	}
	return newSite(zone).check(t, s.sender, signedBy(t, mailFrom(s.from), s.signers...))
}

func (s story) tell(t testing.TB) string {
	v := s.verdict(t)
	d := v.DMARC
	policy := string(d.Policy)
	if policy == "" {
		policy = "-"
	}
	aligned := ""
	if d.SPF {
		aligned += "+spf"
	}
	if d.DKIM {
		aligned += "+dkim"
	}
	return fmt.Sprintf("%s %s%s spf=%s %d", d.Result, policy, aligned, v.SPF.Result, code(t, v, Reject))
}

func runStories(t *testing.T, stories map[string]story) {
	t.Helper()
	for name, s := range stories {
		t.Run(name, func(t *testing.T) {
			if got := s.tell(t); got != s.want {
				t.Errorf("%s, want %s", got, s.want)
			}
		})
	}
}

// Lines for zones.
const (
	passes    = "example.org TXT v=spf1 ip4:" + client + " -all\n"
	fails     = "example.org TXT v=spf1 -all\n"
	rejecting = "_dmarc.example.org TXT v=DMARC1; p=reject\n"
)

func TestDMARC(t *testing.T) {
	const me = "me@example.org"
	runStories(t, map[string]story{
		"SPF passes":            {passes + rejecting, me, me, nil, "pass reject+spf spf=pass 0"},
		"DKIM passes":           {fails + rejecting, me, me, []string{"example.org"}, "pass reject+dkim spf=fail 0"},
		"both pass":             {passes + rejecting, me, me, []string{"example.org"}, "pass reject+spf+dkim spf=pass 0"},
		"nothing passes":        {fails + rejecting, me, me, nil, "fail reject spf=fail 550"},
		"nobody said anything":  {rejecting, me, me, nil, "fail reject spf=none 550"},
		"SPF of someone else":   {"else.example TXT v=spf1 +all\n" + rejecting, "x@else.example", me, nil, "fail reject spf=pass 550"},
		"DKIM of someone else":  {rejecting, me, me, []string{"else.example"}, "fail reject spf=none 550"},
		"one signature of two":  {rejecting, me, me, []string{"else.example", "example.org"}, "pass reject+dkim spf=none 0"},
		"a parent signs":        {rejecting, me, "me@news.example.org", []string{"example.org"}, "pass reject+dkim spf=none 0"},
		"a child signs":         {rejecting, me, me, []string{"news.example.org"}, "pass reject+dkim spf=none 0"},
		"a sibling signs":       {rejecting, me, "me@a.example.org", []string{"b.example.org"}, "pass reject+dkim spf=none 0"},
		"a similar name signs":  {rejecting, me, me, []string{"badexample.org"}, "fail reject spf=none 550"},
		"a null sender by HELO": {"mail.client.example TXT v=spf1 +all\n_dmarc.client.example TXT v=DMARC1; p=reject", "", "me@client.example", nil, "pass reject+spf spf=pass 0"},
		"quarantine":            {"_dmarc.example.org TXT v=DMARC1; p=quarantine", me, me, nil, "fail quarantine spf=none 0"},
		"none":                  {fails + "_dmarc.example.org TXT v=DMARC1; p=none", me, me, nil, "fail none spf=fail 0"},
		"testing":               {"_dmarc.example.org TXT v=DMARC1; p=reject; t=y", me, me, nil, "fail reject spf=none 0"},
		"pct means nothing":     {"_dmarc.example.org TXT v=DMARC1; p=reject; pct=0", me, me, nil, "fail reject spf=none 550"},
		"two records":           {rejecting + "_dmarc.example.org TXT v=DMARC1; p=none", me, me, nil, "none - spf=none 0"},
		"a record of no use":    {"_dmarc.example.org TXT v=DMARC1; p=x", me, me, nil, "permerror - spf=none 0"},
		"no policy but rua":     {fails + "_dmarc.example.org TXT v=DMARC1; rua=mailto:a@b.c", me, me, nil, "fail none spf=fail 0"},
		"an address literal":    {fails, me, "me@[192.0.2.7]", nil, "none - spf=fail 0"},
	})
}

func TestPolicyFromAbove(t *testing.T) {
	const me = "me@sub.example.org"
	const there = "sub.example.org A 192.0.2.80\n"
	runStories(t, map[string]story{
		"p for all":                     {there + "_dmarc.example.org TXT v=DMARC1; p=reject", me, me, nil, "fail reject spf=none 550"},
		"sp":                            {there + "_dmarc.example.org TXT v=DMARC1; p=reject; sp=none", me, me, nil, "fail none spf=none 0"},
		"np, and it exists by A":        {there + "_dmarc.example.org TXT v=DMARC1; p=none; np=reject", me, me, nil, "fail none spf=none 0"},
		"np, and it exists by AAAA":     {"sub.example.org AAAA 2001:db8::1\n_dmarc.example.org TXT v=DMARC1; p=none; np=reject", me, me, nil, "fail none spf=none 0"},
		"np, and it exists by MX":       {"sub.example.org MX 0 .\n_dmarc.example.org TXT v=DMARC1; p=none; np=reject", me, me, nil, "fail none spf=none 0"},
		"np, and it does not exist":     {"_dmarc.example.org TXT v=DMARC1; p=none; np=reject", me, me, nil, "fail reject spf=none 550"},
		"np, and it has only TXT":       {"sub.example.org TXT hello\n_dmarc.example.org TXT v=DMARC1; p=none; sp=none; np=reject", me, me, nil, "fail none spf=none 0"},
		"np weaker than sp":             {"_dmarc.example.org TXT v=DMARC1; p=none; sp=reject; np=none", me, me, nil, "fail none spf=none 0"},
		"sp where there is no np":       {"_dmarc.example.org TXT v=DMARC1; p=none; sp=reject", me, me, nil, "fail reject spf=none 550"},
		"its own record first":          {there + "_dmarc.sub.example.org TXT v=DMARC1; p=none; sp=reject\n_dmarc.example.org TXT v=DMARC1; p=reject", me, me, nil, "fail none spf=none 0"},
		"the highest record":            {there + "_dmarc.b.sub.example.org TXT v=DMARC1; p=none\n_dmarc.example.org TXT v=DMARC1; p=reject", "x@a.b.sub.example.org", "x@a.b.sub.example.org", nil, "fail reject spf=none 550"},
		"psd=n cuts it off":             {there + "_dmarc.sub.example.org TXT v=DMARC1; p=none; psd=n\n_dmarc.example.org TXT v=DMARC1; p=reject", "x@a.sub.example.org", "x@a.sub.example.org", []string{"example.org"}, "fail none spf=none 0"},
		"of the public suffix":          {there + "_dmarc.org TXT v=DMARC1; p=none; sp=reject; psd=y", me, me, nil, "fail reject spf=none 550"},
		"np of the public suffix":       {"_dmarc.org TXT v=DMARC1; p=none; np=reject; psd=y", me, me, nil, "fail reject spf=none 550"},
		"a public suffix aligns no one": {there + "_dmarc.org TXT v=DMARC1; p=reject; psd=y", me, me, []string{"other.org"}, "fail reject spf=none 550"},
		"a record of no use above":      {there + "_dmarc.example.org TXT v=DMARC1", me, me, nil, "permerror - spf=none 0"},
	})
}

func TestStrictAlignment(t *testing.T) {
	const me, sub = "me@example.org", "me@sub.example.org"
	const strict = "_dmarc.example.org TXT v=DMARC1; p=reject; adkim=s; aspf=s\n"
	runStories(t, map[string]story{
		"SPF of a subdomain":                     {"sub.example.org TXT v=spf1 +all\n" + strict, sub, me, nil, "fail reject spf=pass 550"},
		"SPF of itself":                          {passes + strict, me, me, nil, "pass reject+spf spf=pass 0"},
		"DKIM of a subdomain":                    {strict, me, me, []string{"sub.example.org"}, "fail reject spf=none 550"},
		"DKIM of itself":                         {strict, me, me, []string{"example.org"}, "pass reject+dkim spf=none 0"},
		"DKIM of the parent, whose record it is": {strict, me, sub, []string{"example.org"}, "fail reject spf=none 550"},
	})
}

func TestWithoutAPolicySPFDecides(t *testing.T) {
	const me = "me@example.org"
	runStories(t, map[string]story{
		"hard fail":               {fails, me, me, nil, "none - spf=fail 550"},
		"soft fail":               {"example.org TXT v=spf1 ~all", me, me, nil, "none - spf=softfail 0"},
		"neutral":                 {"example.org TXT v=spf1 ?all", me, me, nil, "none - spf=neutral 0"},
		"a broken policy":         {"example.org TXT v=spf1 ip4:1 -all", me, me, nil, "none - spf=permerror 0"},
		"hard fail, but signed":   {fails, me, me, []string{"example.org"}, "none -+dkim spf=fail 0"},
		"signed by a neighbour":   {fails, me, me, []string{"sub.example.org"}, "none -+dkim spf=fail 0"},
		"signed by someone else":  {fails, me, me, []string{"else.example"}, "none - spf=fail 550"},
		"two records":             {fails + "_dmarc.example.org TXT v=DMARC1; p=none\n_dmarc.example.org TXT v=DMARC1; p=none", me, me, nil, "none - spf=fail 550"},
		"a record of no use":      {fails + "_dmarc.example.org TXT v=DMARC1; p=x", me, me, nil, "permerror - spf=fail 550"},
		"HELO of a null sender":   {"mail.client.example TXT v=spf1 -all", "", me, nil, "none - spf=fail 550"},
		"no single author":        {fails, me, me + ", you@example.org", nil, "none - spf=fail 0"},
		"an author of no address": {fails, me, "nobody", nil, "none - spf=fail 0"},
		"a group":                 {fails, me, "us: me@example.org;", nil, "none - spf=fail 0"},
	})
}

// What DNS does not say is no failure: the message waits, where it matters.
func TestDNSThatDoesNotAnswer(t *testing.T) {
	const me, sub = "me@example.org", "me@sub.example.org"
	runStories(t, map[string]story{
		"the policy, nothing passed":            {"_dmarc.example.org FAIL", me, me, nil, "temperror - spf=none 451"},
		"the policy, SPF passed":                {passes + "_dmarc.example.org FAIL", me, me, nil, "temperror -+spf spf=pass 0"},
		"the policy, DKIM passed":               {"_dmarc.example.org FAIL", me, me, []string{"example.org"}, "temperror -+dkim spf=none 0"},
		"the policy, DKIM of someone else":      {"_dmarc.example.org FAIL", me, me, []string{"else.example"}, "temperror - spf=none 451"},
		"the policy above":                      {"_dmarc.example.org FAIL", sub, sub, nil, "temperror - spf=none 451"},
		"the policy of the suffix above":        {"_dmarc.org FAIL", me, me, nil, "temperror - spf=none 451"},
		"the suffix above a record":             {rejecting + "_dmarc.org FAIL", me, me, nil, "fail reject spf=none 550"},
		"the suffix, and the parent signed":     {"_dmarc.sub.example.org TXT v=DMARC1; p=reject\n_dmarc.org FAIL", me, sub, []string{"example.org"}, "temperror reject+dkim spf=none 0"},
		"the suffix, and a stranger signed":     {rejecting + "_dmarc.org FAIL", me, me, []string{"else.org"}, "temperror reject spf=none 451"},
		"the key, and p=reject":                 {rejecting + "sel._domainkey.example.org FAIL TXT", me, me, []string{"example.org"}, "temperror reject spf=none 451"},
		"the key, and p=quarantine":             {"_dmarc.example.org TXT v=DMARC1; p=quarantine\nsel._domainkey.example.org FAIL TXT", me, me, []string{"example.org"}, "temperror quarantine spf=none 0"},
		"the key, and t=y":                      {"_dmarc.example.org TXT v=DMARC1; p=reject; t=y\nsel._domainkey.example.org FAIL TXT", me, me, []string{"example.org"}, "temperror reject spf=none 0"},
		"the key, but SPF passed":               {passes + rejecting + "sel._domainkey.example.org FAIL TXT", me, me, []string{"example.org"}, "pass reject+spf spf=pass 0"},
		"the key of someone else":               {rejecting + "sel._domainkey.else.example FAIL TXT", me, me, []string{"else.example"}, "fail reject spf=none 550"},
		"the SPF of the author":                 {rejecting + "example.org FAIL", me, me, nil, "temperror reject spf=temperror 451"},
		"the SPF of the author, p=none":         {"example.org FAIL\n_dmarc.example.org TXT v=DMARC1; p=none", me, me, nil, "temperror none spf=temperror 0"},
		"the SPF, but DKIM passed":              {rejecting + "example.org FAIL TXT", me, me, []string{"example.org"}, "pass reject+dkim spf=temperror 0"},
		"the SPF of someone else":               {rejecting + "else.example FAIL", "x@else.example", me, nil, "fail reject spf=temperror 550"},
		"the SPF, no policy":                    {"else.example FAIL", "x@else.example", me, nil, "none - spf=temperror 451"},
		"the SPF, no policy, signed":            {"else.example FAIL", "x@else.example", me, []string{"example.org"}, "none -+dkim spf=temperror 0"},
		"the key, no policy, SPF hard fail":     {fails + "sel._domainkey.example.org FAIL TXT", me, me, []string{"example.org"}, "none - spf=fail 451"},
		"the key, no policy, SPF soft fail":     {"example.org TXT v=spf1 ~all\nsel._domainkey.example.org FAIL TXT", me, me, []string{"example.org"}, "none - spf=softfail 0"},
		"whether it exists":                     {"_dmarc.example.org TXT v=DMARC1; p=none; np=reject\nsub.example.org FAIL MX", me, sub, nil, "temperror - spf=none 451"},
		"whether it exists, no matter":          {"_dmarc.example.org TXT v=DMARC1; p=none; np=quarantine\nsub.example.org FAIL MX", me, sub, nil, "fail none spf=none 0"},
		"whether it exists, but DKIM passed":    {"_dmarc.example.org TXT v=DMARC1; p=none; np=reject\nsub.example.org FAIL MX", me, sub, []string{"example.org"}, "pass -+dkim spf=none 0"},
		"whether it exists, and t=y":            {"_dmarc.example.org TXT v=DMARC1; p=none; np=reject; t=y\nsub.example.org FAIL MX", me, sub, nil, "temperror - spf=none 0"},
		"anything, where there is no author":    {"example.org FAIL", me, "nobody", nil, "none - spf=temperror 0"},
		"the addresses of a mechanism":          {"example.org TXT v=spf1 a -all\nexample.org FAIL A\n" + rejecting, me, me, nil, "temperror reject spf=temperror 451"},
		"the addresses of a mail exchanger":     {"example.org TXT v=spf1 mx -all\nexample.org MX 1 a.example\na.example FAIL A\n" + rejecting, me, me, nil, "temperror reject spf=temperror 451"},
		"the reverse zone is nobody's business": {"example.org TXT v=spf1 ptr -all\n" + client + " FAIL\n" + rejecting, me, me, nil, "fail reject spf=fail 550"},
	})
}

func TestOnlyTheModeRejectRefuses(t *testing.T) {
	for _, s := range []story{
		{fails + rejecting, "me@example.org", "me@example.org", nil, ""},
		{fails, "me@example.org", "me@example.org", nil, ""},
		{"_dmarc.example.org FAIL", "me@example.org", "me@example.org", nil, ""},
	} {
		v := s.verdict(t)
		if code(t, v, Mark) != 0 || code(t, v, Off) != 0 || code(t, v, Reject) == 0 {
			t.Errorf("%q: %v %v %v", s.zone, v.Disposition(Mark), v.Disposition(Off), v.Disposition(Reject))
		}
	}
}

func TestRepliesSayWhatIsWrong(t *testing.T) {
	for want, s := range map[string]story{
		"550 5.7.1 The message fails DMARC: neither SPF nor DKIM shows that it is from example.org, which asks to reject such mail":           {fails + rejecting, "me@example.org", "me@example.org", nil, ""},
		"550 5.7.1 SPF of example.org does not let 192.0.2.1 send its mail, and no DKIM signature shows that the message is from example.org": {fails, "me@example.org", "me@example.org", nil, ""},
		"451 4.4.3 Whether the message is from example.org cannot be checked at the moment, for DNS does not answer: please try again later":  {"_dmarc.example.org FAIL", "me@example.org", "me@example.org", nil, ""},
	} {
		r := reply.From(s.verdict(t).Disposition(Reject))
		if r.String() != want {
			t.Errorf("%s, want %s", r, want)
		}
		if r.Temporary() && !strings.Contains(r.Error(), "dmarc example.org") {
			t.Errorf("the log does not learn which answer is missing: %v", r)
		}
	}
}
