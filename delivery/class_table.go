package delivery

import "time"

// A Class is a kind of reply, told from others by what is to be done about it.
type Class uint8

// The classes. Those up to ClassLogin are about us or the server, the rest about a message, a
// mailbox or a transaction.
const (
	ClassUnknown    Class = iota // no rule knows it: 4xx is later, 5xx final
	ClassAccepted                // 2xx and 3xx
	ClassPassing                 // a fault of theirs that passes by itself
	ClassGreylisted              // they want to see whether we come again
	ClassBusy                    // more of us than they bear
	ClassRate                    // more mail from us than they want
	ClassListed                  // our address is on a blocklist
	ClassReverseDNS              // no or wrong reverse DNS
	ClassIPv6                    // our IPv6 address is not fit
	ClassSetup                   // SPF, DKIM, DMARC, TLS or HELO name of ours
	ClassReputation              // our name, or that of the message's domains or links, is bad
	ClassLogin                   // the smarthost refuses our password, or wants one

	ClassUnauthenticated // the author's domain forbids it: DMARC
	ClassContent         // spam, virus, forbidden file type
	ClassMailboxBusy     // the mailbox gets too much at once
	ClassMailboxFull
	ClassNoMailbox  // no such mailbox, or disabled
	ClassNotServed  // the server takes no mail for that domain
	ClassSender     // the reverse-path is refused
	ClassUnfit      // format, size, loop
	ClassRecipients // too many for one transaction
	ClassProtocol   // a command that they did not expect
	ClassPolicy     // a rule of the destination's own

	classes // how many there are
)

// isAboutUs reports whether a reply of this class can be given before there is a message.
func (c Class) isAboutUs() bool { return c <= ClassLogin }

var classNames = [classes]string{
	"unknown", "accepted", "passing", "greylisted", "busy", "rate", "listed", "reverse-dns", "ipv6", "setup",
	"reputation", "login", "unauthenticated", "content", "mailbox-busy", "mailbox-full", "no-mailbox",
	"not-served", "sender", "unfit", "recipients", "protocol", "policy",
}

// String is the name in the log.
func (c Class) String() string { return classNames[c] }

// MarshalText is String, so that JSON has the name.
func (c Class) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

const (
	// rateStop: Google's 421 4.7.28 comes again at once from whoever goes on.
	rateStop = 10 * time.Minute
	// dayStop is for allowances that are counted by the day: within an hour some of it is back.
	dayStop = time.Hour
	// googlePerMinute keeps away from the 60 where a mailbox is locked, for others write to it too.
	googlePerMinute = 40
	// busyPerMinute lets the hour's count of a mailbox that had too much run empty.
	busyPerMinute = 10
	// fullPerMinute is enough to see that there is room again.
	fullPerMinute = 1
	// fewAttempts of the usual spacing take two and a half hours. Who repeats what is taken for
	// spam is soon taken for a spammer.
	fewAttempts = 6
)

// What the admin is told.
const (
	adviseRate = "They take less mail from this server than it has for them: look for spam among what is forwarded and " +
		"for a user whose password was stolen. It goes on by itself, slowly."
	adviseListed = "The address of this server is on a blocklist: follow the link in the reply to see why and to be " +
		"removed, or send through a smarthost. The mail waits."
	adviseReverse = "The address of this server needs a PTR record with its host name, whose A or AAAA record leads back " +
		"to the address: the provider of the server sets it. The mail waits."
	adviseIPv6 = "They do not take mail from the IPv6 address of this server: set its PTR record and name it in SPF, " +
		"or set `ip = \"ipv4\"` under [outbound]."
	adviseSPF = "SPF did not pass: the TXT record of the domain in MAIL FROM, and that of the host name, must name the " +
		"address of this server. See `relay-util dns DOMAIN --check`. The mail waits."
	adviseDKIM = "DKIM did not pass: see with `relay-util dns DOMAIN --check` whether the key that signs stands in DNS. " +
		"The mail waits."
	adviseDMARC = "The sender's domain needs a DMARC record: a TXT record at _dmarc.DOMAIN such as \"v=DMARC1; p=none\". " +
		"The mail waits."
	adviseAlign = "The domain in From is neither that of the DKIM signature nor that of MAIL FROM: give it a key with " +
		"`relay-util dkim-keygen DOMAIN`. The mail waits."
	adviseTLS = "They take mail over TLS only and there was none: see the log for why, such as a firewall that changes " +
		"what is said on port 25. The mail waits."
	adviseHELO = "They do not accept the name of this server: `hostname` in relayd.toml must be a full name whose A or " +
		"AAAA record leads to its address. The mail waits."
	adviseReputation = "They think badly of the address or the domain that mail leaves with: look for spam among what is " +
		"forwarded, and at postmaster.google.com for what Google says."
	adviseLogin = "The smarthost wants a login, or does not accept ours: set the user in `smarthost` and the password in " +
		"`password_file`, under [outbound]. The mail waits: `relay-util queue-retry --all` has it tried at once."
	adviseRelay = "The smarthost does not let this server send: register its address or its domains with them, or set " +
		"user and password. The mail waits."
	adviseGone = "An alias leads to a mailbox that does not exist or is disabled: correct the alias."
	adviseDay  = "The sender's daily allowance at the smarthost is used up: send less, or ask them for more. The mail waits."
	adviseAuth = "They found neither SPF nor DKIM of the message in order: see with `relay-util dns DOMAIN --check` whether " +
		"the records of the domain in MAIL FROM are."
	adviseTelekom = "T-Online takes mail only from servers that it knows: write to tosa@rx.t-online.de with the address of " +
		"this server. Its host name needs a web page that says whose it is. The mail waits."
	adviseMicrosoft = "Microsoft blocks the address of this server: ask for its release at https://sender.office.com or, for " +
		"hotmail.com and outlook.com, at https://olcsupport.office.com. The mail waits."
)

// consequences are what follows from each class. Final is for a 5xx; a 4xx makes it Later.
var consequences = [classes]Verdict{
	ClassUnknown:    {Fate: Final},
	ClassPassing:    {Class: ClassPassing, Fate: Later},
	ClassGreylisted: {Class: ClassGreylisted, Fate: Later},
	ClassBusy:       {Class: ClassBusy, Fate: Later, Strained: true},
	ClassRate:       {Class: ClassRate, Fate: Later, Strained: true, Stop: rateStop, Advice: adviseRate},
	ClassListed:     {Class: ClassListed, Fate: Hold, Advice: adviseListed},
	ClassReverseDNS: {Class: ClassReverseDNS, Fate: Hold, IPv4: true, Advice: adviseReverse},
	ClassIPv6:       {Class: ClassIPv6, Fate: Hold, IPv4: true, Advice: adviseIPv6},
	ClassSetup:      {Class: ClassSetup, Fate: Hold}, // each rule says what to set
	ClassReputation: {Class: ClassReputation, Fate: Final, Attempts: fewAttempts, Suspect: true},
	ClassLogin:      {Class: ClassLogin, Fate: Hold, Advice: adviseLogin},

	ClassUnauthenticated: {Class: ClassUnauthenticated, Fate: Final, Rewrite: true},
	ClassContent:         {Class: ClassContent, Fate: Final, Attempts: fewAttempts, Suspect: true},
	ClassMailboxBusy:     {Class: ClassMailboxBusy, Fate: Later, MailboxPerMinute: busyPerMinute},
	ClassMailboxFull:     {Class: ClassMailboxFull, Fate: Later, MailboxPerMinute: fullPerMinute},
	ClassNoMailbox:       {Class: ClassNoMailbox, Fate: Final, Advice: adviseGone, AliasOnly: true},
	ClassNotServed:       {Class: ClassNotServed, Fate: Final},
	ClassSender:          {Class: ClassSender, Fate: Final},
	ClassUnfit:           {Class: ClassUnfit, Fate: Final},
	ClassRecipients:      {Class: ClassRecipients, Fate: Final, Again: true},
	ClassProtocol:        {Class: ClassProtocol, Fate: Final},
	ClassPolicy:          {Class: ClassPolicy, Fate: Final},
}

// A replyRule says which class a reply is of. All that it states must hold.
type replyRule struct {
	by     string // providers; "" any
	codes  string // enhanced codes, or basic ones, which only count without; "?" is any digit; "" any
	text   string // phrases, see saying.contains; "" any
	rcpt   bool   // at RCPT only
	class  Class
	stop   time.Duration // this and advice: where they are known better than in consequences
	advice string
	// suspect says that the message counts against the server that it came from.
	suspect bool
}

// Who answers for the mail exchangers of these domains.
const (
	google    = "google.com googlemail.com gmail.com"
	microsoft = "outlook.com mx.microsoft office365.com hotmail.com"
	yahoo     = "yahoodns.net"
	apple     = "icloud.com"
)

// replyRules are tried in order, and the first that is met decides: the providers' own meanings;
// then codes that mean the same everywhere; then words, for "5.7.1" and the like are given for all
// there is; then what codes say in general. Within a block the narrower rule stands first.
var replyRules = []replyRule{
	// Google, https://support.google.com/a/answer/3726730. Its 4.7.23, 27, 29, 30 and 40 are not
	// those of RFC 7372, RFC 7505 and RFC 8689.
	{by: google, codes: "?.7.28", text: "same message-id", class: ClassBusy},
	{by: google, codes: "?.7.28", text: "url domains", class: ClassRate, suspect: true},
	{by: google, codes: "?.7.28", class: ClassRate},
	{by: google, codes: "?.4.5", text: "limit exceeded", class: ClassRate, stop: dayStop, advice: adviseDay},
	{by: google, codes: "?.7.1", text: "daily smtp relay", class: ClassRate, stop: dayStop, advice: adviseDay},
	{by: google, codes: "?.7.1", text: "rate limited", class: ClassRate},
	{by: google, codes: "?.7.23 ?.7.25", class: ClassReverseDNS},
	{by: google, codes: "?.7.1", text: "ipv6 sending guidelines", class: ClassIPv6},
	{by: google, codes: "?.7.0", text: "ptr record", class: ClassReverseDNS},
	{by: google, codes: "4.7.0", text: "reputation|suspicious", class: ClassReputation},
	{by: google, codes: "4.7.0", text: "try again later, closing", class: ClassBusy},
	{by: google, codes: "5.7.1", text: "low reputation", class: ClassReputation, advice: adviseReputation},
	{by: google, codes: "?.7.24 ?.7.27", class: ClassSetup, advice: adviseSPF},
	{by: google, codes: "?.7.26", text: "temporary dns failures", class: ClassPassing},
	{by: google, codes: "?.7.26", text: "hard fail policy", class: ClassSetup, advice: adviseSPF},
	{by: google, codes: "?.7.26", text: "dmarc policy", class: ClassUnauthenticated},
	{by: google, codes: "?.7.26", class: ClassUnauthenticated, advice: adviseAuth},
	{by: google, codes: "?.7.29", class: ClassSetup, advice: adviseTLS},
	{by: google, codes: "?.7.30", class: ClassSetup, advice: adviseDKIM},
	{by: google, codes: "?.7.32", class: ClassSetup, advice: adviseAlign},
	{by: google, codes: "?.7.40", class: ClassSetup, advice: adviseDMARC},
	{by: google, codes: "?.7.0 ?.7.1", text: "email relay denied|email sending denied|credentials for relay", class: ClassSetup, advice: adviseRelay},
	{by: google, codes: "?.7.0", text: "presents a potential", class: ClassContent},
	{by: google, codes: "?.7.0", text: "no identity changes|unauthenticated commands", class: ClassProtocol},
	{by: google, codes: "?.7.10 ?.7.11", class: ClassProtocol},
	{by: google, codes: "?.7.14", class: ClassLogin},
	{by: google, codes: "?.7.1", text: "not compliant|not rfc 5322|header|unicode character|encoded-word", class: ClassUnfit},
	{by: google, codes: "?.7.1", text: "not authorized to send email directly", class: ClassListed},
	{codes: "?.2.1", text: "at a rate that", class: ClassMailboxBusy},

	// Microsoft, https://learn.microsoft.com/exchange/mail-flow-best-practices/non-delivery-reports-in-exchange-online.
	{text: "(s3150)|(s3140)|on our block list (s", class: ClassListed, advice: adviseMicrosoft},
	{by: microsoft, codes: "4.7.6??", class: ClassRate},
	{by: microsoft, text: "rp-00", class: ClassRate},
	{by: microsoft, codes: "5.7.6?? 5.7.511 5.7.708", class: ClassListed, advice: adviseMicrosoft},
	{by: microsoft, codes: "5.7.509 5.7.515", class: ClassUnauthenticated},
	{by: microsoft, codes: "4.7.5??", class: ClassBusy},
	{by: microsoft, codes: "?.4.1", text: "access denied", class: ClassNoMailbox}, // the tenant knows no such address
	{codes: "?.1.351", class: ClassNoMailbox},
	{codes: "?.2.121 ?.2.122", class: ClassMailboxBusy},
	{text: "recipient thread limit", class: ClassMailboxBusy},
	{text: "resolver.rst.authrequired|resolver.rst.notauthorized", class: ClassPolicy},
	{codes: "5.7.1??", class: ClassPolicy},

	// Yahoo, AOL and AT&T, https://senders.yahooinc.com/smtp-error-codes. It means hours.
	{by: yahoo, text: "[ts03]|[ts06]|permanently deferred|[bl", class: ClassListed},
	{by: yahoo, text: "[ts|unexpected volume", class: ClassRate, stop: dayStop},
	{by: yahoo, text: "[ph01]", class: ClassContent},
	{by: yahoo, codes: "?.7.9", class: ClassUnauthenticated},

	// Apple, https://support.apple.com/102322. The excess is the mailbox's.
	{by: apple, text: "excessive volume", class: ClassMailboxBusy},
	{by: apple, text: "due to local policy", class: ClassReputation, advice: adviseReputation},

	// Others who have words of their own: T-Online, Comcast, Cox, La Poste, GMX and web.de, Mimecast
	// (which greylists like this), SES.
	{by: "t-online.de", text: "ask your postmaster|tosa@", class: ClassListed, advice: adviseTelekom},
	{by: "comcast.net", text: "block for spam|code bl00|#bl0", class: ClassListed},
	{by: "cloudfilter.net", text: "aup#", class: ClassListed},
	{by: "laposte.net", text: "service refuse", class: ClassBusy},
	{by: "gmx.net web.de kundenserver.de ionos.com", codes: "421 450", text: "reject due to policy", class: ClassRate},
	{by: "mimecast.com", codes: "451 4.?.?", text: "resources are temporarily unavailable", class: ClassGreylisted},
	{text: "email address is not verified", class: ClassSender},

	// Greylisting comes with any code; postscreen's first look at a client with this one.
	{text: "greylist|graylist|grey-list|grey list|gray list", class: ClassGreylisted},
	{codes: "4.3.2", text: "service currently unavailable", class: ClassGreylisted},

	// Codes of RFC 3463, 5248, 7372 and 7505 that servers give for nothing else.
	{codes: "?.1.?", text: "recipients this hour", class: ClassRate},
	{codes: "?.1.1", text: "recipient preferences", class: ClassPolicy},
	{codes: "?.1.1 ?.1.3 ?.1.4 ?.1.6 ?.1.10 ?.7.13", class: ClassNoMailbox},
	{codes: "?.1.2", class: ClassNotServed},
	{codes: "?.1.7 ?.1.8 ?.7.27", class: ClassSender},
	{codes: "4.2.1", class: ClassMailboxBusy},
	{codes: "5.2.1", class: ClassNoMailbox},
	{codes: "?.2.2", class: ClassMailboxFull},
	{codes: "?.2.3 ?.3.4 ?.4.6", class: ClassUnfit},
	{codes: "?.3.1", class: ClassPassing},
	{codes: "5.3.2", class: ClassNotServed},
	{codes: "?.4.5", class: ClassBusy},
	{codes: "?.5.3", class: ClassRecipients},
	{codes: "?.7.8", class: ClassLogin},
	{codes: "?.7.20 ?.7.21", class: ClassSetup, advice: adviseDKIM},
	{codes: "?.7.23 ?.7.24", class: ClassSetup, advice: adviseSPF},
	{codes: "?.7.25", class: ClassReverseDNS},
	{codes: "?.7.22 ?.7.26", class: ClassUnauthenticated},
	{codes: "?.7.28", class: ClassRate},

	// Words about us. A list of domains or links is about the message, whoever keeps the list.
	{text: "dbl.spamhaus|spamhaus dbl|surbl|uribl|blocked url|listed url", class: ClassContent},
	{text: "over ipv6", class: ClassIPv6},
	{text: "ptr record|ptr resource|no ptr|reverse dns|reverse lookup|reverse hostname|cannot find your hostname|" +
		"name lookup failed|rdns", class: ClassReverseDNS},
	{text: "helo command rejected|helo/ehlo argument|invalid helo|bad helo|helo name", class: ClassSetup, advice: adviseHELO},
	{text: "starttls command first|starttls first|tls required|requires tls|encryption required", class: ClassSetup, advice: adviseTLS},
	{text: "dmarc*temporar|temporar*dmarc|dmarc*lookup", class: ClassPassing},
	{text: "dmarc", class: ClassUnauthenticated},
	{text: "spf record|spf fail|spf check|spf policy|spf valid|sender policy framework|openspf", class: ClassSetup, advice: adviseSPF},

	// Words about how much and how many, first those of a mailbox.
	{text: "mailbox received too|recipient*too many messages|recipient*rate limit|mailbox busy|mailbox is busy|mailbox is locked|" +
		"temporary locked|temporarily locked", class: ClassMailboxBusy},
	{text: "too many connections|too many concurrent|concurrent connections|too many simultaneous|too many smtp|too many*sessions|" +
		"connection limit|connection rate|server busy|server is busy|ports are busy|too busy|overload|system load|" +
		"load average", class: ClassBusy},
	{text: "rate limit|rate-limit|ratelimit|frequency limit|throttl|too many messages|too much mail|unexpected volume|sending limit|" +
		"this hour|per hour|per day", class: ClassRate},
	{text: "too many recipients|multiple destination domains|separate transaction", class: ClassRecipients},

	// Blocklists, among them those of Spamhaus, SORBS, SpamCop, Barracuda, Cloudmark and Proofpoint.
	{text: "blocked using|black list|blacklist|block list|blocklist|dnsbl|spamhaus|sorbs.net|spamcop|barracudanetworks.com/reputation|" +
		"csi.cloudmark|client host rejected|client host blocked|blocked ip|banned ip|your ip*blocked|ip address*blocked|" +
		"poor reputation", class: ClassListed},

	// Words about a mailbox, a domain, the sender.
	{text: "over quota|overquota|quota exceed|exceed*quota|quota limit|mailbox full|mailbox is full|mailbox for user is full|" +
		"out of storage|storage quota|storage allocation|storage space", class: ClassMailboxFull},
	{text: "null sender|empty sender|sender address rejected|sender rejected|sender verify|sender*not exist|domain of sender", class: ClassSender},
	{text: "user unknown|unknown user|no such user|user not found|user not exist|user not known|user does not exist|" +
		"user doesn't exist|no such recipient|no such mailbox|no mailbox here|no such address|unknown recipient|recipient unknown|recipient not found|unknown address|unknown local|invalid recipient|" +
		"invalid mailbox|mailbox not found|mailbox unavailable|mailbox*not exist|account*not exist|account*disabled|account is blocked|" +
		"account is inactive|unroutable|unrouteable|not a registered|not our user|no longer on|doesn't have a", class: ClassNoMailbox},
	{text: "relay access denied|relaying denied|relay denied|not permitted to relay|relay not permitted|unable to relay|" +
		"smtp authentication|not our customer|" +
		"does not accept mail|host unknown|domain is not reachable|rcpthosts", class: ClassNotServed},
	{text: "authentication required|authentication is required", class: ClassLogin},

	// Words about the message.
	{text: "too large|too big|size limit|exceeds*size|maximum size|too many hops|mail loop|routing loop", class: ClassUnfit},
	{text: "rfc 5322|rfc5322|rfc 2822|rfc2822|from: header|from header|duplicate header|malformed|bare lf|bare newline|" +
		"purported responsible", class: ClassUnfit},
	{text: "spam|unsolicited|virus|malware|phish| ube|content reject|suspicious", class: ClassContent},

	// What is left: a rule of theirs, a fault of theirs, or what the code says in general.
	{text: "insufficient*storage|insufficient system|disk space|disk full|out of disk", class: ClassPassing},
	{codes: "452", rcpt: true, class: ClassRecipients}, // RFC 5321 section 4.5.3.1.10
	{codes: "4?? 4.?.?", text: "try again|try later|later|temporar|timeout|timed out|expired|resources|local error|" +
		"internal error|unavailable", class: ClassPassing},
	{text: "policy|policies|access denied|prohibit|whitelist|not authorized|not allowed|administrative", class: ClassPolicy},
	{codes: "4.0.0 4.3.0 4.3.5 4.4.? 4.7.5", class: ClassPassing},
	{codes: "421 4.3.2", class: ClassBusy},
	{codes: "?.6.?", class: ClassUnfit},
	{codes: "?.5.0 ?.5.1 ?.5.2 ?.5.4 500 501 502 503 504 555", class: ClassProtocol},
	{codes: "530 534 535 538", class: ClassLogin},
	{codes: "551", class: ClassNoMailbox},
	{codes: "521 556", class: ClassNotServed},
}
