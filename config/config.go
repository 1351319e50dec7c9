// Package config turns the two TOML files that a person writes, relayd.toml and a domain's
// domain.toml, into checked values. What it returns needs no second look: every key is known,
// every value is of its type and within its range, every name and address is in normal form.
//
// It is strict, so that a typing error never becomes a setting silently left at its default, and
// it reports everything that is wrong with a file at once, as a problem.List with file, line and
// what to write instead. (A file that is not TOML has one problem: where it stops being TOML.)
// No reason quotes the password of a smarthost, wherever it was written by mistake.
//
// Parsing reads neither the environment nor the network. Only Load and StateDir read files: the
// one they are given and, Load alone, the files with secrets that one names. All functions are safe for
// concurrent use.
package config

import (
	"net/netip"
	"path/filepath"
	"time"
)

// Values of Outbound.IP.
const (
	IPAuto = "auto"
	IPv4   = "ipv4"
	IPv6   = "ipv6"
)

// Values of ACME.Challenge, named as in RFC 8555 section 8 and RFC 8737.
const (
	ChallengeHTTP = "http-01"
	ChallengeALPN = "tls-alpn-01"
	ChallengeDNS  = "dns-01"
)

// Config is relayd.toml, checked, with the default in place of every key that is not given.
// It is not to be changed after Parse or Load returned it.
type Config struct {
	file string

	Hostname   string // fully qualified, lower case, A-labels: EHLO name, Received "by", ACME name
	Postmaster string // "" or an address: takes postmaster@ and abuse@ when nothing else does
	StateDir   string // absolute and clean

	Listen   Listen
	Limits   Limits
	TLS      TLS
	DNS      DNS
	Outbound Outbound
	Queue    Queue
	Forward  Forward
	Mailbox  Mailbox
	Filter   Filter
	ACME     ACME
	Auth     Auth
	Aliases  Aliases
	Sendmail Sendmail
	Log      Log
}

// Listen has the addresses to listen on: "host:port", ":port", or "systemd:NAME" for a socket
// inherited under that name. No address stands twice. Port 0 lets the system choose one.
type Listen struct {
	SMTP        []string // mail from anyone to hosted addresses
	Submission  []string // STARTTLS, then AUTH
	Submissions []string // implicit TLS, AUTH (RFC 8314)
	HTTP        []string // ACME's HTTP-01, in the clear
	HTTPS       []string // ACME's TLS-ALPN-01
	// ProxyFrom are networks of proxies that say by the PROXY protocol who the client is, as netip.Prefix
	// writes them. It is for all but HTTP, HTTPS and Metrics.
	ProxyFrom []string
	Metrics   []string // /metrics for Prometheus, in the clear and for whoever asks: a private address
}

// Limits bounds what clients may ask for.
type Limits struct {
	MessageSize         Size // 64KB to 1GB
	Recipients          int  // per transaction, at least 1
	Connections         int  // open at one time, at least 1
	ConnectionsPerIP    int  // open at one time from one address, at least 1
	UserMessagesPerHour int  // 0: no limit
	CatchallAddresses   int  // different addresses an hour from one source; 0: no limit
}

// TLS says which certificates are good enough.
type TLS struct {
	AllowSelfSigned bool // offer AUTH without a certificate of the admin's or of ACME
}

// DNS says whom to ask.
type DNS struct {
	Servers []string // "ip:port" or "[ip]:port"; empty: the system's
	Trusted Trust    // about DNSSEC
}

// Outbound says how mail leaves.
type Outbound struct {
	Port int    // of the MX hosts
	IP   string // IPAuto, IPv4 or IPv6
	// SourceIPv4 and SourceIPv6 are the addresses of this machine that SMTP connections come from;
	// the zero Addr leaves the choice to the system.
	SourceIPv4, SourceIPv6 netip.Addr

	Smarthost    Smarthost
	PasswordFile string // as written; Load has read it into Smarthost.Password
	// To and From are smarthosts by the domain of the recipient and by that of the reverse-path
	// under which the message leaves. To comes before From, and both before Smarthost.
	To, From map[string]Way
	// TLS is how much of it a mail exchanger must have: TLSNone, TLSMay, TLSEncrypt or TLSVerify by the
	// domain of recipients, by ".domain" for all below it, by host or registrable domain of hosts, or
	// by "*" for the rest.
	TLS map[string]string
}

// Queue has the times and the bounds of mail that waits. No submitter may fill more than half of
// it, nor may all that comes from outside.
type Queue struct {
	Lifetime     Duration // 1s to 720h; then the sender gets a DSN
	DelayWarning Duration // when a local submitter is told that mail is late; 0: never
	MaxMessages  int      // 100 to 10,000,000; each takes about 250 bytes of memory
	MaxSize      Size     // of all bodies; 0: as far as the disk goes
}

// Forward says how mail for hosted addresses goes on.
type Forward struct {
	AnswerWithin Duration // how long a sender waits for the destination; 0: queue at once
	SRSDomain    string   // "": the hosted domain that the mail was for
}

// Mailbox says where the mailboxes are.
type Mailbox struct {
	// LMTP is the server that users' mail is handed to (RFC 2033), "unix:/path" or "host:port";
	// "": users have no mailbox here.
	LMTP string
}

// ACME says how certificates are ordered (RFC 8555).
type ACME struct {
	Enabled   bool
	Email     string   // "" or an address
	Directory string   // https URL
	Names     []string // besides Hostname, each once, "*.domain" with ChallengeDNS only
	Challenge string   // ChallengeHTTP, ChallengeALPN or ChallengeDNS
	Webroot   string   // absolute and clean, with ChallengeHTTP only: where another web server has its files; "" for none
	Provider  string   // DNS provider by its lego name, with ChallengeDNS only
	// DNS has the provider's settings. Load has read secrets from the files that keys with "_file" at
	// their end name, and left the key without it.
	DNS map[string]string

	secrets []string // those files
}

// Auth says how passwords are hashed.
type Auth struct {
	BcryptCost int // 4 to 15: each step doubles the work of a login
}

// Aliases says what alias files may do.
type Aliases struct {
	AllowPipe bool // targets like "|command" run a program
}

// Sendmail says who of this machine's own users may send, and as whom.
type Sendmail struct {
	Domain string // of local users' addresses; "": nothing is taken of them
	// Users are the addresses besides NAME@Domain that a local user may send as, by its name or "*" for
	// all: an address as address.Key has it, "*@domain", or "*".
	Users map[string][]string
}

// Log says what is logged, and how.
type Log struct {
	Level  string // "debug", "info", "warn" or "error"
	Format string // "text" or "json"
	// Privacy is what is kept out: "full" for nothing, "no-ip", "no-address" or "none", as in room logs.
	Privacy string
}

// Default returns the settings of a file that has no key at all. Only Hostname, which has no
// default, is missing from it.
func Default() *Config {
	return &Config{
		StateDir: "/var/lib/relayd",
		Listen: Listen{
			SMTP:        []string{":25"},
			Submission:  []string{":587"},
			Submissions: []string{":465"},
			HTTP:        []string{},
			HTTPS:       []string{},
			Metrics:     []string{},
			ProxyFrom:   []string{},
		},
		Limits: Limits{
			MessageSize:       50 * MB,
			Recipients:        100, // the least that RFC 5321 section 4.5.3.1.8 lets a server take
			Connections:       1000,
			ConnectionsPerIP:  100,
			CatchallAddresses: 1000,
		},
		DNS:      DNS{Servers: []string{}},
		Outbound: Outbound{Port: 25, IP: IPAuto, To: map[string]Way{}, From: map[string]Way{}, TLS: map[string]string{}},
		Queue: Queue{
			Lifetime:     Duration(5 * 24 * time.Hour), // RFC 5321 section 4.5.4.1: at least 4 to 5 days
			DelayWarning: Duration(4 * time.Hour),
			MaxMessages:  2_000_000,
		},
		Forward: Forward{AnswerWithin: Duration(25 * time.Second)},
		Filter:  Filter{DNSBL: []string{}, Milter: []string{}},
		ACME: ACME{
			Directory: "https://acme-v02.api.letsencrypt.org/directory",
			Names:     []string{},
			Challenge: ChallengeHTTP,
			DNS:       map[string]string{},
		},
		Auth:     Auth{BcryptCost: 10},
		Sendmail: Sendmail{Users: map[string][]string{}},
		Log:      Log{Level: "info", Format: "text", Privacy: "full"},
	}
}

// File is the name of the file, as it was given.
func (c *Config) File() string { return c.file }

// Dir is the folder that the file is in.
func (c *Config) Dir() string { return filepath.Dir(c.file) }

// DomainsDir is the folder with one folder for each hosted domain.
func (c *Config) DomainsDir() string { return filepath.Join(c.Dir(), "domains") }

// CertsDir is the folder with the certificates that were made elsewhere.
func (c *Config) CertsDir() string { return filepath.Join(c.Dir(), "certs") }

// ACMEDir is the folder with the certificates by ACME, and what belongs to them.
func (c *Config) ACMEDir() string { return filepath.Join(c.StateDir, "certs") }

// ControlSocket is the path of the unix socket between the daemon and relay-util.
func (c *Config) ControlSocket() string { return filepath.Join(c.StateDir, "control.sock") }

// QueueDir is the folder with the mail that waits.
func (c *Config) QueueDir() string { return filepath.Join(c.StateDir, "queue") }

// GoodDir is where the last good copies of the domains' files are kept.
func (c *Config) GoodDir() string { return filepath.Join(c.StateDir, "lastgood") }

// Parse reads data as the relayd.toml that lies at file. The name is for problems and for Dir;
// nothing is opened, so the passwords of smarthosts stay empty. An error is a problem.List.
func Parse(file string, data []byte) (*Config, error) {
	c, doc := parse(file, data)
	if err := doc.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// At is Default for the file of that name, whatever stands in it.
func At(file string) *Config {
	c := Default()
	c.file = file
	return c
}

func parse(file string, data []byte) (*Config, *document) {
	c := At(file)
	doc := read(file, data, schema{
		settings:  c.settings(),
		other:     DefaultDomain().settings(),
		otherFile: "domains/DOMAIN/domain.toml",
	})
	if doc.whole {
		c.crossCheck(doc)
	}
	return c, doc
}
