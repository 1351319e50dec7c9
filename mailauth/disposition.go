package mailauth

import (
	"fmt"
	"strings"

	"relayd/dkim"
	"relayd/reply"
)

// A Mode says what a domain does with mail for it that is not what it claims to be. The words are
// those of the setting `dmarc`.
type Mode string

// The modes.
const (
	Reject Mode = "reject" // refuse it, or put it off where DNS owes the decisive answer
	Mark   Mode = "mark"   // take it; the Authentication-Results field says what it is
	Off    Mode = "off"    // take it
)

// A judgement is what becomes of a message in the mode Reject.
type judgement int

const (
	accept judgement = iota
	refuseDMARC
	refuseSPF
	wait
)

// Disposition is nil for a message to be accepted, and else the *reply.Reply to refuse it with
// (550 5.7.1), or to put it off with (451 4.4.3). Only the mode Reject does either.
//
// Refused is what fails DMARC where the policy is to reject; and where there is no policy, what
// SPF fails for its sender without a signature of the author's domain. A message is put off only
// where the answer that DNS owes could turn acceptance into refusal or the other way round, and
// for four hours of the same question: after that it is judged as if there were nothing to find.
// Where a name server refuses such questions it is accepted at once.
func (v *Verdict) Disposition(mode Mode) error {
	if mode != Reject {
		return nil
	}
	switch v.judge() {
	case refuseDMARC:
		return reply.New(550, "5.7.1", "The message fails DMARC: neither SPF nor DKIM shows that it is from %s, which asks to reject such mail", v.From.Domain)
	case refuseSPF:
		return reply.New(550, "5.7.1", "SPF of %s does not let %s send its mail, and no DKIM signature shows that the message is from %s", v.SPF.Domain, v.client, v.From.Domain)
	case wait:
		if v.closed {
			return nil
		}
		return reply.New(451, "4.4.3", "Whether the message is from %s cannot be checked at the moment, for DNS does not answer: please try again later", v.From.Domain).Because(fmt.Errorf("%w to: %s", errUnanswered, strings.Join(v.questions(), ", ")))
	}
	return nil
}

func (v *Verdict) judge() judgement {
	d := &v.DMARC
	owed := !v.overdue // what is missing is waited for
	switch {
	case v.From.IsNull(), d.Err == errNoDomain:
		return accept
	case d.unknown && (d.SPF || d.DKIM || d.Testing):
		return accept
	case d.unknown && owed:
		return wait
	case d.unknown, d.Domain == "", !d.record.usable:
		return v.judgeWithoutPolicy(owed)
	case d.SPF, d.DKIM, d.Testing, d.Policy != PolicyReject:
		return accept
	case len(d.missing) > 0 && owed:
		return wait
	}
	return refuseDMARC
}

// judgeWithoutPolicy goes by SPF, since there is no policy of the author's to go by.
func (v *Verdict) judgeWithoutPolicy(owed bool) judgement {
	switch {
	case v.DMARC.DKIM:
		return accept
	case v.SPF.Result == TempError && owed:
		return wait
	case v.SPF.Result != Fail:
		return accept
	case len(v.DMARC.missing) > 0 && owed:
		return wait
	}
	return refuseSPF
}

// questions are those that the message waits for.
func (v *Verdict) questions() []string {
	list := v.DMARC.missing
	if v.SPF.Result == TempError {
		list = append(list[:len(list):len(list)], spfQuestion(v.SPF.Domain))
	}
	return list
}

// answered are the questions of this message that DNS has answered.
func (v *Verdict) answered() []string {
	var list []string
	if v.SPF.Result != TempError {
		list = append(list, spfQuestion(v.SPF.Domain))
	}
	if !v.DMARC.unknown && !v.DMARC.guessed {
		list = append(list, policyQuestion(v.From.Domain))
	}
	for _, s := range v.DKIM {
		if s.Kind != dkim.TempError {
			list = append(list, dkimQuestion(s))
		}
	}
	return list
}

// What DNS is asked, in words to remember it by.
func spfQuestion(domain string) string    { return "spf " + domain }
func policyQuestion(domain string) string { return "dmarc " + domain }
func dkimQuestion(s dkim.Result) string   { return "dkim " + s.Selector + " " + s.Domain }
