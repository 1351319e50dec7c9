package config

import (
	"strings"
	"testing"
)

// TestBad has files and all that is wrong with them.
func TestBad(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		// not TOML
		{"hostname = mx.example.com", `f:1: not TOML: no value after "=": text, sizes and times stand in double quotes`},
		{host + "[limits]\nmessage_size = 50MB\n", "f:3: not TOML: the line goes on after its value: text, sizes and times stand in double quotes, and each key has its own line"},
		{host + "\nhostname = \"b.example\"", "f:3: not TOML: Key 'hostname' has already been defined"},
		{host + "[limits\nrecipients = 1\n", `f:2: not TOML: expected '.' or ']' to end table name, but got '\n' instead`},
		{"hostname = \"mx\n", "f:1: not TOML: strings cannot contain newlines"},

		{host + "[listen]\nproxy_from = [\"10.0.0.0/8\", \"10.0.0.1/8\", \"x\", \"0.0.0.0/0\"]", "f:3: listen.proxy_from: \"10.0.0.1/8\" has bits behind its length: did you mean \"10.0.0.0/8\"?\n" +
			"f:3: listen.proxy_from: \"x\" is not a network: write one like \"10.0.0.0/8\" or \"2001:db8::/32\", or an IP address\n" +
			"f:3: listen.proxy_from: \"0.0.0.0/0\" is the whole world: anybody could then pass for anybody else"},

		// unknown keys
		{host + "[limits]\n\nrecipents = 5", "f:4: unknown key limits.recipents: did you mean recipients?"},
		{host + "message_size = \"5MB\"", "f:2: unknown key message_size: message_size belongs under [limits]"},
		{host + "[limits]\npostmaster = \"\"", "f:3: unknown key limits.postmaster: postmaster belongs at the top of the file, above the first [table]"},
		{host + "[limit]\nrecipients = 5\nconnections = 5", "f:2: unknown table [limit]: did you mean [limits]?"},
		{host + "[limits.outbound]\nport = 5", "f:2: unknown table [limits.outbound]: [outbound] is a table of its own"},
		{host + "mesage_size = \"5MB\"", "f:2: unknown key mesage_size: did you mean message_size under [limits]?"},
		{host + "Post-Master = \"\"", "f:2: unknown key Post-Master: did you mean postmaster?"},
		{host + "dmarc = \"off\"", "f:2: unknown key dmarc: dmarc belongs in domains/DOMAIN/domain.toml"},
		{host + "[tls]\nversion = 3", "f:3: unknown key tls.version: there are only allow_self_signed"},
		{host + "\"limits.recipients\" = 3", "f:2: unknown key \"limits.recipients\": there are only hostname, postmaster, state_dir, [listen], [limits], [tls], [dns], [outbound], [queue], [forward], [mailbox], [filter], [acme], [auth], [aliases], [sendmail], [log]"},
		{host + "[outbound]\nsmarthost = { url = \"\" }", "f:3: outbound.smarthost: must be text in double quotes, not a table"},

		// wrong types
		{"hostname = 5", "f:1: hostname: must be text in double quotes, not a number"},
		{host + "limits = 5", "f:2: limits: is a table: write [limits] on a line of its own and its keys below"},
		{host + "[[limits]]\nrecipients = 5", "f:2: limits: is a table: write [limits] on a line of its own and its keys below"},
		{host + "[limits]\nrecipients = \"5\"", "f:3: limits.recipients: must be a whole number without quotes, not text"},
		{host + "[limits]\nrecipients = 1.5", "f:3: limits.recipients: must be a whole number without quotes, not a number with a fraction"},
		{host + "[tls]\nallow_self_signed = \"yes\"", "f:3: tls.allow_self_signed: must be true or false, without quotes, not text"},
		{host + "[listen]\nsmtp = \":25\"", `f:3: listen.smtp: must be a list like ["a", "b"], not text`},
		{host + "[listen]\nsmtp = [\n\":25\",\n587,\n]", "f:3: listen.smtp: must be a list of texts in double quotes, but item 2 is a number"},
		{host + "[queue]\nlifetime = 120", `f:3: queue.lifetime: needs a unit: write a duration like "25s" or "120h" in double quotes`},
		{host + "[acme.dns]\nttl = 60\nx.y = \"a\"", "f:3: acme.dns.ttl: must be text in double quotes, not a number\nf:4: acme.dns.x: is a table: a name with a dot in it must stand in double quotes"},
		{host + "[acme]\ndns = 5", "f:3: acme.dns: must be a table, not a number"},

		// impossible values
		{"", `f:1: hostname is missing: write the full name of this server at the top, like hostname = "mx.example.com"`},
		{"hostname = \"\"", `f:1: hostname: is empty: write the full name of this server, like "mx.example.com"`},
		{"hostname = \"localhost\"", `f:1: hostname: "localhost" is not a full domain name: write one like "mx.example.com"`},
		{"hostname = \"192.0.2.1\"", `f:1: hostname: "192.0.2.1" is an IP address or a number: write a domain name`},
		{"hostname = \"[192.0.2.1]\"", `f:1: hostname: "[192.0.2.1]" is an IP address or a number: write a domain name`},
		{"hostname = \"my_mx.example.com\"", `f:1: hostname: "my_mx.example.com" is not a host name: letters, digits, hyphens and dots are allowed`},
		{host + "postmaster = \"me\"", `f:2: postmaster: "me" has no @: an address is name@domain`},
		{host + "state_dir = \"var\"", `f:2: state_dir: "var" is not an absolute path: it must begin with /`},
		{host + "state_dir = \"/" + strings.Repeat("x", 100) + "\"", `f:2: state_dir: the path is 7 bytes too long for the socket "control.sock" in it`},
		{host + "[limits]\nmessage_size = \"50 MB\"", `f:3: limits.message_size: "50 MB" is not a size: write a whole number and KB, MB or GB, like "50MB"`},
		{host + "[limits]\nmessage_size = \"2GB\"", "f:3: limits.message_size: must be between 64KB and 1GB, not 2GB"},
		{host + "[limits]\nmessage_size = -1", `f:3: limits.message_size: "-1" is not a size: write a whole number and KB, MB or GB, like "50MB"`},
		{host + "[limits]\nrecipients = 0", "f:3: limits.recipients: must be between 1 and 10000, not 0"},
		{host + "[outbound]\nport = 70000", "f:3: outbound.port: must be between 1 and 65535, not 70000"},
		{host + "[outbound]\nip = \"v4\"", `f:3: outbound.ip: must be "auto", "ipv4" or "ipv6", not "v4"`},
		{host + "[outbound]\nsource_ipv4 = \"mx.example.com\"", `f:3: outbound.source_ipv4: "mx.example.com" is not an IP address`},
		{host + "[outbound]\nsource_ipv4 = 5", "f:3: outbound.source_ipv4: must be text in double quotes, not a number"},
		{host + "[outbound]\nsource_ipv4 = \"2001:db8::1\"", "f:3: outbound.source_ipv4: 2001:db8::1 is not an IPv4 address"},
		{host + "[outbound]\nsource_ipv6 = \"192.0.2.1\"", "f:3: outbound.source_ipv6: 192.0.2.1 is not an IPv6 address"},
		{host + "[outbound]\nsource_ipv6 = \"::ffff:192.0.2.1\"", "f:3: outbound.source_ipv6: ::ffff:192.0.2.1 is not an IPv6 address"},
		{host + "[outbound]\nsource_ipv6 = \"fe80::1%eth0\"", "f:3: outbound.source_ipv6: fe80::1%eth0 is of one network link only: write an address that reaches further"},
		{host + "[outbound]\nsource_ipv4 = \"0.0.0.0\"\nsource_ipv6 = \"ff02::1\"",
			`f:3: outbound.source_ipv4: 0.0.0.0 is no address that a connection can come from: write one of this machine, or "" for the system's choice` + "\n" +
				`f:4: outbound.source_ipv6: ff02::1 is no address that a connection can come from: write one of this machine, or "" for the system's choice`},
		{host + "[queue]\nlifetime = \"5d\"", `f:3: queue.lifetime: "5d" is not a duration: write a number and s, m or h, like "25s"; 5 days are "120h"`},
		{host + "[queue]\nlifetime = \"0s\"", "f:3: queue.lifetime: must be between 1s and 720h, not 0s"},
		{host + "[queue]\nlifetime = \"2h\"\ndelay_warning = \"3h\"", `f:4: queue.delay_warning: 3h is longer than the lifetime of 2h, so the warning would never come: write "0s" for none`},
		{host + "[forward]\nanswer_within = \"-1s\"", "f:3: forward.answer_within: must be between 0s and 5m, not -1s"},
		{host + "[auth]\nbcrypt_cost = 16", "f:3: auth.bcrypt_cost: must be between 4 and 15, not 16"},
		{host + "[dns]\nservers = [\"dns.example\", \"[192.0.2.1]\"]", "f:3: dns.servers: \"dns.example\" is not a DNS server: write an IP address, like \"192.0.2.53\" or \"[2001:db8::53]:53\"\n" +
			"f:3: dns.servers: \"[192.0.2.1]\" is not a DNS server: write an IP address, like \"192.0.2.53\" or \"[2001:db8::53]:53\""},
		{host + "[acme]\ndirectory = \"http://x.example/dir\"", `f:3: acme.directory: "http://x.example/dir" is not a URL that begins with "https://"`},

		// addresses to listen on
		{host + "[listen]\nsmtp = [\"25\"]", `f:3: listen.smtp: "25": write an address and a port like "192.0.2.1:25", ":25" for every address, or "systemd:NAME"`},
		{host + "[listen]\nsmtp = [\":smtp\"]", `f:3: listen.smtp: ":smtp": port "smtp" is not a number from 0 to 65535`},
		{host + "[listen]\nsmtp = [\"::1:25\"]", `f:3: listen.smtp: "::1:25": an IPv6 address must stand in brackets, like "[2001:db8::1]:25"`},
		{host + "[listen]\nsmtp = [\"systemd:\"]", `f:3: listen.smtp: "systemd:": after "systemd:" stands the FileDescriptorName of a socket unit`},
		{host + "[listen]\nsmtp = [\":25\", \"[::]:25\"]", `f:3: listen.smtp: "[::]:25" is in listen.smtp already: each address can be listened on once`},
		{host + "[listen]\nsmtp = [\"192.0.2.1:25\"]\nhttp = [\"192.0.2.1:025\"]", `f:4: listen.http: "192.0.2.1:025" is in listen.smtp already: each address can be listened on once`},
		{host + "[listen]\nsmtp = [\":25\", \":587\"]", `f:3: listen.smtp: ":587" is in listen.submission already, by default: each address can be listened on once`},

		// settings that contradict each other
		{host + "[outbound]\nsmarthost = \"submission://u@h\"", `f:3: outbound.smarthost: has the user "u" but no password: write it into a file and name the file in password_file`},
		{host + "[outbound]\npassword_file = \"pw\"", "f:3: outbound.password_file: is of no use without a smarthost"},
		{host + "[outbound]\nsmarthost = \"smtp://h\"\npassword_file = \"pw\"", "f:4: outbound.password_file: is of no use when the smarthost has no user: write submission://USER@h:25"},
		{host + "[outbound.to]\n\"x.example\" = { smarthost = \"submission://u@h\" }", `f:3: outbound.to."x.example".smarthost: has the user "u" but no password: write it into a file and name the file in password_file`},
		{host + "[outbound.from.\"x.example\"]\nsmarthost = \"\"\npassword_file = \"pw\"", `f:4: outbound.from."x.example".password_file: is of no use without a smarthost`},
		{host + "[outbound.to.\"x.example\"]\npassword_file = \"pw\"", `f:2: outbound.to."x.example": has no smarthost: write one, or smarthost = "" for the domain's own mail servers`},
		{host + "[outbound.to.\"x y\"]\nsmarthost = \"\"", `f:2: outbound.to."x y": domain "x y" has a byte that no domain name has`},
		{host + "[outbound.to]\n\"x.example\" = { smarthost = \"\" }\n\"X.example.\" = { smarthost = \"\" }", `f:3: outbound.to."x.example": stands twice: x.example is the same domain`},
		{host + "[outbound.to]\nx.example = { smarthost = \"\" }", "f:3: outbound.to.x.example: is a table: a name with a dot in it must stand in double quotes"},
		{host + "[outbound.to.\"x.example\"]\nsmarthost = 5\nsmarthots = \"\"", "f:3: outbound.to.\"x.example\".smarthost: must be text in double quotes, not a number\n" +
			"f:4: outbound.to.\"x.example\".smarthots: unknown key: there are only smarthost, password_file"},
		{host + "[outbound]\nto = \"smtp://h\"", "f:3: outbound.to: must be a table, not text"},
		{host + "[outbound.to]\n\"x.example\" = \"smtp://h\"", `f:3: outbound.to."x.example": must be a table like { smarthost = "submission://user@host", password_file = "file" }, not text`},
		{host + "[dns]\ntrusted = \"yes\"", `f:3: dns.trusted: must be true or false, without quotes, or "auto", not text`},
		{host + "[outbound.tls]\n\"x.example\" = \"must\"", `f:3: outbound.tls."x.example": must be "none", "may", "encrypt" or "verify", not "must"`},
		{host + "[outbound.tls]\n\n\"192.0.2.1\" = \"may\"", `f:4: outbound.tls."192.0.2.1": "192.0.2.1" is an IP address or a number: write a domain name`},
		{host + "[outbound.tls]\n\"*.x.example\" = \"may\"", `f:3: outbound.tls."*.x.example": domain "*.x.example" has a byte that no domain name has`},
		{host + "[outbound.tls]\n\"X.example\" = \"may\"\n\"x.example.\" = \"none\"", `f:4: outbound.tls."x.example.": stands twice: x.example is the same name`},
		{host + "[outbound.tls]\nx.example = \"may\"", "f:3: outbound.tls.x: is a table: a name with a dot in it must stand in double quotes"},
		{host + "[outbound.tls]\n\"x.example\" = true", `f:3: outbound.tls."x.example": must be text in double quotes, not true or false`},
		{host + "[outbound]\ntls = \"verify\"", "f:3: outbound.tls: must be a table, not text"},
		{host + "[mailbox]\nlmtp = \"/run/lmtp\"", `f:3: mailbox.lmtp: write "unix:" and the path of a socket, or "tcp:host:port"`},
		{host + "[mailbox]\nlmtp = \"unix:lmtp\"", `f:3: mailbox.lmtp: write the whole path of the socket behind "unix:", like "unix:/run/dovecot/lmtp"`},
		{host + "[mailbox]\nlmtp = \"unix:/" + strings.Repeat("x", 107) + "\"", "f:3: mailbox.lmtp: the path of the socket is longer than 107 bytes"},
		{host + "[log]\nprivacy = \"no-adress\"", `f:3: log.privacy: must be "full", "no-ip", "no-address" or "none", not "no-adress": did you mean "no-address"?`},
		{host + "[log]\nprivacy = \"everything\"", `f:3: log.privacy: must be "full", "no-ip", "no-address" or "none", not "everything"`},
		{host + "[mailbox]\nlmtp = \"tcp:dovecot:25\"", "f:3: mailbox.lmtp: port 25 is for SMTP: LMTP servers listen on a port of their own, like 24"},
		{host + "[filter]\ndnsbl = [\"zen\", \"a.example\", \"A.example\"]", "f:3: filter.dnsbl: \"zen\": \"zen\" is not a full domain name: write one like \"mx.example.com\"\n" +
			"f:3: filter.dnsbl: \"A.example\" stands twice"},
		{host + "[filter]\nrspamd = \"127.0.0.1:11333\"", `f:3: filter.rspamd: write the URL of rspamd's worker, like "http://127.0.0.1:11333", or "unix:" and the path of its socket`},
		{host + "[filter]\nrspamd = \"http://me:hunter2@h:1\"", "f:3: filter.rspamd: has more in it than a host and a port: the password belongs into a file, named in password_file"},
		{host + "[filter]\nrspamd = \"unix:rspamd.sock\"", `f:3: filter.rspamd: write the whole path of the socket behind "unix:", like "unix:/run/rspamd/normal.sock"`},
		{host + "[filter]\npassword_file = \"pw\"", "f:3: filter.password_file: is of no use without rspamd"},
		{host + "[filter]\nmilter = [\"inet:127.0.0.1\", \"/run/x\", \"unix:x\"]", `f:3: filter.milter: "inet:127.0.0.1": write "inet:" and a host and port, like "inet:127.0.0.1:8891", or "unix:" and the path of a socket` + "\n" +
			`f:3: filter.milter: "/run/x": write "inet:" and a host and port, like "inet:127.0.0.1:8891", or "unix:" and the path of a socket` + "\n" +
			`f:3: filter.milter: "unix:x": write the whole path of the socket behind "unix:", like "unix:/run/opendkim/opendkim.sock"`},
		{host + "[acme]\nenabled = true", `f:3: acme.enabled: http-01 needs a listener: write http = [":80"] under [listen], or the webroot of the server that has port 80`},
		{host + "[acme]\nenabled = true\nchallenge = \"tls-alpn-01\"", `f:4: acme.challenge: tls-alpn-01 needs a listener: write https = [":443"] under [listen]`},
		{host + "[acme]\nchallenge = \"dns-01\"\nwebroot = \"/w\"", `f:4: acme.webroot: is only for challenge = "http-01", and the challenge is "dns-01"`},
		{host + "[acme]\nwebroot = \"www\"", `f:3: acme.webroot: must be the whole path of a folder, like "/var/www/html"`},
		{host + "[acme]\nnames = [\"*.example.com\"]", `f:3: acme.names: a wildcard like "*.example.com" can only be proved by challenge = "dns-01"`},
		{host + "[acme]\nnames = [\"a.example\", \"A.example\"]", `f:3: acme.names: "A.example" stands twice`},
		{host + "[acme]\nnames = [\"*.*.example\", \"my_mx.example\"]", "f:3: acme.names: domain \"*.example\" has a byte that no domain name has\n" +
			`f:3: acme.names: "my_mx.example" is not a host name: letters, digits, hyphens and dots are allowed`},
		{host + "[acme]\nenabled = true\nchallenge = \"dns-01\"", "f:4: acme.challenge: dns-01 needs the name of your DNS provider in acme.provider"},
		{host + "[acme]\nprovider = \"ovh\"", `f:3: acme.provider: is only for challenge = "dns-01", and the challenge is "http-01"`},

		// all of it, in the order of the lines, and nothing that only follows from another problem
		{"[outbound]\npassword_file = \"pw\"\nsmarthost = \"ftp://h\"\n[acme]\nenabled = 1\n[queue]\nlifetime = \"0s\"\ndelay_warning = \"1h\"\n",
			"f:1: hostname is missing: write the full name of this server at the top, like hostname = \"mx.example.com\"\n" +
				"f:3: outbound.smarthost: must begin with submission://, submissions:// or smtp://\n" +
				"f:5: acme.enabled: must be true or false, without quotes, not a number\n" +
				"f:7: queue.lifetime: must be between 1s and 720h, not 0s"},
	} {
		c, err := Parse("f", []byte(tt.text))
		if c != nil || err == nil || err.Error() != tt.want {
			t.Errorf("%s\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func TestNoReasonQuotesThePassword(t *testing.T) {
	for _, value := range []string{
		"submission://me:hunter2@smtp.example.com", "me:hunter2@smtp.example.com", "smtps://me:hunter2@h",
		"smtp://me:hunter2@h", "submission://me:hunter2@h:x", "submission://me:hunter2", "submission://me:hunter2@h/path@x",
	} {
		for _, text := range []string{"smarthost = \"" + value + "\"", "smarthost = " + value, "smarthots = \"" + value + "\""} {
			_, err := Parse("f", []byte(host+"[outbound]\n"+text+"\n"))
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v", text, err)
			}
		}
	}
}

// TestNamesThatAreNoPaths: hostnames, and names of certificates, whose folders have them, and of domains.
func TestNamesThatAreNoPaths(t *testing.T) {
	for _, name := range []string{
		".", "..", "../outside", "../../etc", "/etc", "a/b.example", "a.example/..", `a\\b.example`, "a\\u0000.example", ".a.example", "a..example", "%2e%2e.example",
		"..%2fa.example", "a b.example", "a\\n.example", strings.Repeat("x", 64) + ".example", "-a.example", "~", "a:b.example", "*", "*.*.example", "a.*.example",
	} {
		for _, text := range []string{
			"hostname = \"" + name + "\"", host + "[forward]\nsrs_domain = \"" + name + "\"",
			host + "[acme]\nchallenge = \"dns-01\"\nnames = [\"" + name + "\"]", host + "[acme]\nchallenge = \"dns-01\"\nnames = [\"*." + name + "\"]",
			host + "[sendmail]\ndomain = \"" + name + "\"",
		} {
			if _, err := Parse("f", []byte(text)); err == nil {
				t.Errorf("taken: %s", text)
			}
		}
		if _, err := ParseDomain("f", []byte("srs_domain = \""+name+"\"")); err == nil {
			t.Errorf("srs_domain %q is taken", name)
		}
	}
}
