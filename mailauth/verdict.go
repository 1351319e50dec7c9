package mailauth

import (
	"net/netip"

	"relayd/address"
	"relayd/dkim"
)

// A Verdict is what is known about one message. It is not changed after Check returned it, and so
// is safe for concurrent use.
type Verdict struct {
	SPF     SPF             // for the envelope sender; for a null one, that of HELO
	HeloSPF SPF             // for the name of the client
	DKIM    []dkim.Result   // of the signatures from the top, at most ten
	From    address.Address // the one author; zero where there is not exactly one, and DMARC.Err says why
	DMARC   DMARC
	IPRev   IPRev // decides nothing

	hostname string
	client   netip.Addr
	sender   address.Address
	overdue  bool // what is missing has been missing for so long that it is left out of account
	closed   bool // what is missing was refused by a name server that answers no such questions
}

// PassedBySPFOnly reports whether the message has passed DMARC, but will not once it is forwarded:
// no signature of an aligned domain passed.
func (v *Verdict) PassedBySPFOnly() bool {
	return v.DMARC.Result == Pass && v.DMARC.SPF && !v.DMARC.DKIM
}

// Authentic reports whether the envelope sender has really sent the message, and so may be told
// what becomes of it: SPF passed for it, or DMARC passed for an author of its organisation. It is
// false for a null sender, who is never told.
func (v *Verdict) Authentic() bool {
	if v.sender.IsNull() {
		return false
	}
	return v.SPF.Result == Pass || v.DMARC.Result == Pass && guess(v.sender.Domain) == guess(v.From.Domain)
}

// Shown is the organisational domain that the message has been shown to be from: that of its author
// if SPF or DKIM passed in alignment with it, else one that SPF passed for; "" if there is none. It is
// told by the public suffix list.
func (v *Verdict) Shown() string {
	switch {
	case v.DMARC.SPF || v.DMARC.DKIM:
		return guess(v.From.Domain)
	case v.SPF.Result == Pass:
		return guess(v.SPF.Domain)
	}
	return ""
}

// Aligned reports whether SPF or DKIM passed for an author in a domain. For the domain of From it
// is alignment as the domain's DMARC record wants it, and relaxed where it has none; for another
// domain it is relaxed, by the public suffix list. Where it is false, Undecided may say that it
// might still come true.
func (v *Verdict) Aligned(domain string) bool {
	if domain == v.From.Domain && domain != "" {
		return v.DMARC.SPF || v.DMARC.DKIM
	}
	org := guess(domain)
	if v.SPF.Result == Pass && guess(v.SPF.Domain) == org {
		return true
	}
	for _, s := range v.DKIM {
		if s.Kind == dkim.Pass && guess(s.Domain) == org {
			return true
		}
	}
	return false
}

// Undecided reports whether an answer of DNS is missing without which nobody can say that the
// message is not Aligned with the domain of From. The way out is to answer 451 4.4.3. It is false
// once that answer has been missing for four hours.
func (v *Verdict) Undecided() bool {
	return !v.overdue && len(v.DMARC.missing) > 0
}

// Quarantine reports whether the message is to be looked at with suspicion: it fails DMARC, and the
// policy is to quarantine or to reject; or it is one that the mode Reject refuses for SPF.
func (v *Verdict) Quarantine() bool {
	d := &v.DMARC
	failed := d.Result == Fail && !d.Testing && d.Policy != PolicyNone
	return failed || v.judge() == refuseDMARC || v.judge() == refuseSPF
}
