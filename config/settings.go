package config

import (
	"time"

	"github.com/BurntSushi/toml"
)

// settings lists every key of relayd.toml, in the order of etc/relayd.toml. The upper ends of
// ranges have no deeper meaning than to catch a slip of the hand.
func (c *Config) settings() []setting {
	hour := Duration(time.Hour)
	return []setting{
		{"hostname", &c.Hostname, hostname(&c.Hostname)},
		{"postmaster", &c.Postmaster, optionalAddress(&c.Postmaster)},
		{"state_dir", &c.StateDir, stateDir(&c.StateDir)},

		{"listen.smtp", &c.Listen.SMTP, listenAddresses(&c.Listen.SMTP)},
		{"listen.submission", &c.Listen.Submission, listenAddresses(&c.Listen.Submission)},
		{"listen.submissions", &c.Listen.Submissions, listenAddresses(&c.Listen.Submissions)},
		{"listen.http", &c.Listen.HTTP, listenAddresses(&c.Listen.HTTP)},
		{"listen.https", &c.Listen.HTTPS, listenAddresses(&c.Listen.HTTPS)},
		{"listen.metrics", &c.Listen.Metrics, listenAddresses(&c.Listen.Metrics)},
		{"listen.proxy_from", &c.Listen.ProxyFrom, networks(&c.Listen.ProxyFrom)},

		{"limits.message_size", &c.Limits.MessageSize, between(&c.Limits.MessageSize, 64*KB, GB)},
		{"limits.recipients", &c.Limits.Recipients, between(&c.Limits.Recipients, 1, 10_000)},
		{"limits.connections", &c.Limits.Connections, between(&c.Limits.Connections, 1, 1_000_000)},
		{"limits.connections_per_ip", &c.Limits.ConnectionsPerIP, between(&c.Limits.ConnectionsPerIP, 1, 1_000_000)},
		{"limits.user_messages_per_hour", &c.Limits.UserMessagesPerHour, between(&c.Limits.UserMessagesPerHour, 0, 1_000_000)},
		{"limits.catchall_addresses", &c.Limits.CatchallAddresses, between(&c.Limits.CatchallAddresses, 0, 1_000_000)},

		{"tls.allow_self_signed", &c.TLS.AllowSelfSigned, nil},

		{"dns.servers", &c.DNS.Servers, dnsServers(&c.DNS.Servers)},
		{"dns.trusted", &c.DNS.Trusted, nil},

		{"outbound.port", &c.Outbound.Port, between(&c.Outbound.Port, 1, 65_535)},
		{"outbound.ip", &c.Outbound.IP, oneOf(&c.Outbound.IP, IPAuto, IPv4, IPv6)},
		{"outbound.source_ipv4", &c.Outbound.SourceIPv4, sourceAddress(&c.Outbound.SourceIPv4, IPv4)},
		{"outbound.source_ipv6", &c.Outbound.SourceIPv6, sourceAddress(&c.Outbound.SourceIPv6, IPv6)},
		{"outbound.smarthost", &c.Outbound.Smarthost, nil},
		{"outbound.password_file", &c.Outbound.PasswordFile, nil},
		{"outbound.to", &c.Outbound.To, ways(&c.Outbound.To)},
		{"outbound.from", &c.Outbound.From, ways(&c.Outbound.From)},
		{"outbound.tls", &c.Outbound.TLS, tlsDemands(&c.Outbound.TLS)},

		{"queue.lifetime", &c.Queue.Lifetime, between(&c.Queue.Lifetime, Duration(time.Second), 30*24*hour)},
		{"queue.delay_warning", &c.Queue.DelayWarning, between(&c.Queue.DelayWarning, 0, 30*24*hour)},
		{"queue.max_messages", &c.Queue.MaxMessages, between(&c.Queue.MaxMessages, 100, 10_000_000)},
		{"queue.max_size", &c.Queue.MaxSize, between(&c.Queue.MaxSize, 0, 1000*GB)},

		// A client waits ten minutes for the answer to its final dot (RFC 5321 section
		// 4.5.3.2.6), some wait less: half of that is as far as it is safe to go.
		{"forward.answer_within", &c.Forward.AnswerWithin, between(&c.Forward.AnswerWithin, 0, hour/12)},
		{"forward.srs_domain", &c.Forward.SRSDomain, optionalDomain(&c.Forward.SRSDomain)},

		{"mailbox.lmtp", &c.Mailbox.LMTP, lmtpServer(&c.Mailbox.LMTP)},

		{"filter.dnsbl", &c.Filter.DNSBL, eachOnce(&c.Filter.DNSBL, qualified)},
		{"filter.rspamd", &c.Filter.Rspamd, nil},
		{"filter.password_file", &c.Filter.PasswordFile, nil},
		{"filter.milter", &c.Filter.Milter, eachOnce(&c.Filter.Milter, milterSocket)},

		{"acme.enabled", &c.ACME.Enabled, nil},
		{"acme.email", &c.ACME.Email, optionalAddress(&c.ACME.Email)},
		{"acme.directory", &c.ACME.Directory, httpsURL(&c.ACME.Directory)},
		{"acme.names", &c.ACME.Names, certificateNames(&c.ACME.Names)},
		{"acme.challenge", &c.ACME.Challenge, oneOf(&c.ACME.Challenge, ChallengeHTTP, ChallengeALPN, ChallengeDNS)},
		{"acme.webroot", &c.ACME.Webroot, webroot(&c.ACME.Webroot)},
		{"acme.provider", &c.ACME.Provider, nil},
		{"acme.dns", &c.ACME.DNS, nil},

		{"auth.bcrypt_cost", &c.Auth.BcryptCost, between(&c.Auth.BcryptCost, 4, 15)},

		{"aliases.allow_pipe", &c.Aliases.AllowPipe, nil},

		{"sendmail.domain", &c.Sendmail.Domain, optionalDomain(&c.Sendmail.Domain)},
		{"sendmail.users", &c.Sendmail.Users, localUsers(&c.Sendmail.Users)},

		{"log.level", &c.Log.Level, oneOf(&c.Log.Level, "debug", "info", "warn", "error")},
		{"log.format", &c.Log.Format, oneOf(&c.Log.Format, "text", "json")},
		{"log.privacy", &c.Log.Privacy, oneOf(&c.Log.Privacy, "full", "no-ip", "no-address", "none")},
	}
}

// crossCheck judges what no setting shows alone.
func (c *Config) crossCheck(doc *document) {
	if _, given := doc.given["hostname"]; !given {
		doc.complainAt(1, `hostname is missing: write the full name of this server at the top, like hostname = "mx.example.com"`)
	}
	c.checkListen(doc)
	c.checkSmarthost(doc)
	c.checkFilter(doc)
	c.checkACME(doc)
	// The default may exceed a short lifetime that someone sets; only a warning that was asked for
	// and can never come is worth a complaint.
	if doc.sound("queue.delay_warning") && !doc.broken("queue.lifetime") && c.Queue.DelayWarning > c.Queue.Lifetime {
		doc.complaints("queue.delay_warning").add(`%v is longer than the lifetime of %v, so the warning would never come: write "0s" for none`,
			c.Queue.DelayWarning, c.Queue.Lifetime)
	}
}

// checkListen finds addresses that stand twice, in one list or in two. A list that is not in the
// file counts with its default.
func (c *Config) checkListen(doc *document) {
	first := map[string]string{}
	for _, list := range []struct {
		name      string
		addresses []string
	}{
		{"listen.smtp", c.Listen.SMTP},
		{"listen.submission", c.Listen.Submission},
		{"listen.submissions", c.Listen.Submissions},
		{"listen.http", c.Listen.HTTP},
		{"listen.https", c.Listen.HTTPS},
		{"listen.metrics", c.Listen.Metrics},
	} {
		if doc.broken(list.name) {
			continue
		}
		for _, s := range list.addresses {
			socket, _ := listenSocket(s)
			other, taken := first[socket]
			switch {
			case socket == "": // port 0 is another port each time
			case !taken:
				first[socket] = list.name
			case doc.sound(list.name):
				doc.complaints(list.name).add("%q is in %s already: each address can be listened on once", s, other)
			default:
				doc.complaints(other).add("%q is in %s already, by default: each address can be listened on once", s, list.name)
			}
		}
	}
}

func (c *Config) checkSmarthost(doc *document) {
	if doc.broken("outbound.smarthost") || doc.broken("outbound.password_file") {
		return
	}
	Way{c.Outbound.Smarthost, c.Outbound.PasswordFile}.check(complaints{doc, toml.Key{"outbound"}})
}
