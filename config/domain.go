package config

import (
	"maps"
	"slices"
	"strings"

	"relayd/address"
)

// Values of Domain.SenderPolicy.
const (
	SenderSameTarget = "same-target" // also addresses of the domain whose targets are the user's own
	SenderOwn        = "own"         // the own address only
	SenderDomain     = "domain"      // every address of the domain
)

// Values of Domain.DMARC.
const (
	DMARCReject = "reject"
	DMARCMark   = "mark"
	DMARCOff    = "off"
)

// Values of Domain.OnDMARCRefusal.
const (
	RefusalRewrite = "rewrite" // send once more with From in a domain of ours
	RefusalReject  = "reject"
)

// Values of Domain.OwnFrom.
const (
	OwnFromRefuse = "refuse"
	OwnFromAllow  = "allow"
)

// Domain is domain.toml, checked, with the default in place of every key that is not given.
// It is not to be changed after ParseDomain returned it.
type Domain struct {
	// SenderPolicy says which addresses a user may send as besides the own one: SenderSameTarget,
	// SenderOwn or SenderDomain.
	SenderPolicy string

	// SendAs grants users more addresses. Its keys are local parts of users; its values are
	// addresses, or "*@domain" for all of a domain. Both are in lower case, as address.Key makes them.
	SendAs map[string][]string

	// MessagesPerHour is how many messages users may send in an hour, by local part in lower case; 0 is no
	// limit. For others limits.user_messages_per_hour of relayd.toml is.
	MessagesPerHour map[string]int

	SuffixSeparators string // each character of it starts a suffix; "": there are none
	DropCharacters   string // characters that do not count in a local part
	SRSDomain        string // "": what relayd.toml says
	Mailbox          bool   // users have a mailbox, if relayd.toml says where

	DMARC          string // for mail that fails it: DMARCReject, DMARCMark or DMARCOff
	OnDMARCRefusal string // of a forwarded message by its destination: RefusalRewrite or RefusalReject
	OwnFrom        string // for outside mail that claims a hosted From: OwnFromRefuse or OwnFromAllow
	Digest         bool   // a mail a day to postmaster about mail that could not be forwarded
}

// DefaultDomain returns the settings of a domain without a domain.toml.
func DefaultDomain() *Domain {
	return &Domain{
		SenderPolicy:     SenderSameTarget,
		SendAs:           map[string][]string{},
		MessagesPerHour:  map[string]int{},
		SuffixSeparators: "+",
		DropCharacters:   ".",
		Mailbox:          true,
		DMARC:            DMARCReject,
		OnDMARCRefusal:   RefusalRewrite,
		OwnFrom:          OwnFromRefuse,
		Digest:           true,
	}
}

// settings lists every key of domain.toml, in the order of etc/domain.toml.
func (d *Domain) settings() []setting {
	return []setting{
		{"sender_policy", &d.SenderPolicy, oneOf(&d.SenderPolicy, SenderSameTarget, SenderOwn, SenderDomain)},
		{"send_as", &d.SendAs, d.checkSendAs},
		{"messages_per_hour", &d.MessagesPerHour, d.checkMessagesPerHour},
		{"suffix_separators", &d.SuffixSeparators, punctuation(&d.SuffixSeparators)},
		{"drop_characters", &d.DropCharacters, punctuation(&d.DropCharacters)},
		{"srs_domain", &d.SRSDomain, optionalDomain(&d.SRSDomain)},
		{"mailbox", &d.Mailbox, nil},
		{"dmarc", &d.DMARC, oneOf(&d.DMARC, DMARCReject, DMARCMark, DMARCOff)},
		{"on_dmarc_refusal", &d.OnDMARCRefusal, oneOf(&d.OnDMARCRefusal, RefusalRewrite, RefusalReject)},
		{"own_from", &d.OwnFrom, oneOf(&d.OwnFrom, OwnFromRefuse, OwnFromAllow)},
		{"digest", &d.Digest, nil},
	}
}

// ParseDomain reads data as a domain.toml; file is its name in problems. An empty file is fine,
// as every key is optional. An error is a problem.List.
func ParseDomain(file string, data []byte) (*Domain, error) {
	d := DefaultDomain()
	doc := read(file, data, schema{
		settings:  d.settings(),
		other:     Default().settings(),
		otherFile: "relayd.toml",
	})
	if err := doc.err(); err != nil {
		return nil, err
	}
	return d, nil
}

func (d *Domain) checkSendAs(bad complaints) {
	granted := make(map[string][]string, len(d.SendAs))
	for _, name := range slices.Sorted(maps.Keys(d.SendAs)) {
		bad := bad.under(name)
		user := strings.ToLower(name)
		if strings.Contains(name, "@") {
			bad.add("write only what stands before the @ of the user")
		} else if err := address.CheckLocal(user); err != nil {
			bad.add("is not a user: %v", err)
		} else if _, twice := granted[user]; twice {
			bad.add("stands twice: upper and lower case are the same user")
		}
		granted[user] = []string{}
		for _, s := range d.SendAs[name] {
			a, err := address.Parse(s)
			if err != nil {
				bad.add(`%v; "*@domain" stands for all of a domain`, err)
				continue
			}
			granted[user] = append(granted[user], a.Key())
		}
	}
	d.SendAs = granted
}

func (d *Domain) checkMessagesPerHour(bad complaints) {
	limits := make(map[string]int, len(d.MessagesPerHour))
	for _, name := range slices.Sorted(maps.Keys(d.MessagesPerHour)) {
		bad, user := bad.under(name), strings.ToLower(name)
		if strings.Contains(name, "@") {
			bad.add("write only what stands before the @ of the user")
		} else if err := address.CheckLocal(user); err != nil {
			bad.add("is not a user: %v", err)
		} else if _, twice := limits[user]; twice {
			bad.add("stands twice: upper and lower case are the same user")
		}
		limits[user] = d.MessagesPerHour[name]
		n := limits[user]
		between(&n, 0, 1_000_000)(bad)
	}
	d.MessagesPerHour = limits
}

// punctuation checks the characters that have a meaning inside a local part. A letter or a digit
// among them would tear ordinary names apart, and those that need quotes never arrive plain.
func punctuation(p *string) func(complaints) {
	return func(bad complaints) {
		for _, r := range *p {
			if !strings.ContainsRune("!#$%&'*+-./=?^_`{|}~", r) {
				bad.add("%q cannot be used: only punctuation that an address may have without quotes, like + - _ .", r)
			}
		}
	}
}
