package main

import (
	"fmt"
	"strings"

	"relayd/address"
	"relayd/config"
)

// stranger is who writes in the explanations of `aliases-resolve --explain`.
const strangerName, strangerDomain = "someone", "elsewhere.example"

// An explanation says how forwarded mail will look to its targets. Its texts are for people.
type explanation struct {
	Matched     string `json:"matched"`                // the rule or mailbox that takes the mail, and how it was found
	From        string `json:"from,omitempty"`         // the sender that the rest is about
	SRSDomain   string `json:"srs_domain,omitempty"`   // in whose name copies leave
	ReversePath string `json:"reverse_path,omitempty"` // under which they do
	SPF         string `json:"spf,omitempty"`
	DKIM        string `json:"dkim,omitempty"`
	DMARC       string `json:"dmarc,omitempty"`
}

// explain makes the explanation of mail for a. Mail that stays in mailboxes and programs here has
// nothing to prove to anybody.
func (w world) explain(a address.Address, r resolution) *explanation {
	e := &explanation{Matched: r.Steps[0].String()}
	if !r.leaves {
		return e
	}
	d := w.Get(a.Domain)
	name := d.Name
	switch {
	case d.Settings.SRSDomain != "":
		name = d.Settings.SRSDomain
	case w.Forward.SRSDomain != "":
		name = w.Forward.SRSDomain
	}
	e.From, e.SRSDomain = strangerName+"@"+strangerDomain, name
	e.ReversePath = fmt.Sprintf("SRS0=HASH=DAY=%s=%s@%s", strangerDomain, strangerName, name)
	e.SPF = fmt.Sprintf("passes for %s, whose SPF record must name this server", name)
	ours, signs := w.ourSignature(name)
	e.DKIM = "the author's signature stays whole; " + ours
	e.DMARC = "passes if the author's domain signs: SPF"
	if signs {
		e.DMARC += " and our signature are"
	} else {
		e.DMARC += " is"
	}
	e.DMARC += " for " + name + ", not for the author's From. " + afterRefusal(d.Settings.OnDMARCRefusal, name, signs)
	return e
}

// ourSignature says by which keys mail in the name of a domain is signed.
func (w world) ourSignature(name string) (text string, signs bool) {
	d := w.Get(name)
	switch {
	case d == nil:
		return fmt.Sprintf("ours is missing: %s is not hosted here; make it with `relay-util domain-add %[1]s`, which makes a key", name), false
	case len(d.Keys) == 0:
		return fmt.Sprintf("ours is missing: %s has no key; make one with `relay-util dkim-keygen %[1]s`", name), false
	}
	var keys []string
	for _, k := range d.Keys {
		keys = append(keys, fmt.Sprintf("d=%s s=%s", name, k.Selector))
	}
	return "ours is added (" + strings.Join(keys, ", ") + ")", true
}

// afterRefusal says what becomes of mail that only SPF has proven, when a target refuses it.
func afterRefusal(setting, name string, signs bool) string {
	switch {
	case setting != config.RefusalRewrite:
		return "Mail of a domain that does not sign and has a strict policy is refused by the target, and its sender is told"
	case !signs:
		return "Mail of a domain that does not sign and has a strict policy is refused by the target, for without a key it cannot be sent from " + name + " instead"
	}
	return "Mail of a domain that does not sign and has a strict policy is sent once more, when the target refuses it, with From: noreply@" + name + " and the author in Reply-To"
}

func (t *tool) printExplanation(e *explanation) {
	t.say("")
	t.say("Taken by: %s", e.Matched)
	if e.SRSDomain == "" {
		t.say("It stays on this server: nothing about it is changed.")
		return
	}
	t.say("Mail from %s leaves under the reverse-path %s", e.From, e.ReversePath)
	t.say("SPF at the target: %s.", e.SPF)
	t.say("DKIM at the target: %s.", e.DKIM)
	t.say("DMARC at the target: %s.", e.DMARC)
}
