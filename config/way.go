package config

import (
	"errors"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"relayd/address"
)

// A Way is a smarthost for some of the mail. With the zero Smarthost that mail goes to the MX hosts
// of its recipients, whatever the others do.
type Way struct {
	Smarthost    Smarthost
	PasswordFile string // as written; Load has read it into Smarthost.Password
}

// check judges what no key of w shows alone; bad is for the table that the keys stand in.
func (w Way) check(bad complaints) {
	host, hasPassword := w.Smarthost, w.PasswordFile != ""
	switch {
	case host.User != "" && !hasPassword:
		bad.under("smarthost").add("has the user %q but no password: write it into a file and name the file in password_file", host.User)
	case hasPassword && host.IsZero():
		bad.under("password_file").add("is of no use without a smarthost")
	case hasPassword && host.User == "":
		bad.under("password_file").add("is of no use when the smarthost has no user: write submission://USER@%s", host.Addr())
	}
}

// assignWays fills a table of tables by domain.
func assignWays(p *map[string]Way, value any, bad complaints) bool {
	table, ok := value.(map[string]any)
	if !ok {
		bad.add("must be a table, not %s", kind(value))
		return false
	}
	*p = make(map[string]Way, len(table))
	for _, name := range slices.Sorted(maps.Keys(table)) {
		w, right := readWay(table[name], bad.under(name))
		ok = ok && right
		(*p)[name] = w
	}
	return ok
}

// readWay reads the table of one domain. It reports whether nothing is wrong with it.
func readWay(value any, bad complaints) (w Way, ok bool) {
	keys, isTable := value.(map[string]any)
	if !isTable {
		bad.add(`must be a table like { smarthost = "submission://user@host", password_file = "file" }, not %s`, kind(value))
		return w, false
	}
	ok = true
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		switch _, isTable := keys[name].(map[string]any); {
		case name == "smarthost":
			ok = assign(&w.Smarthost, keys[name], bad.under(name)) && ok
		case name == "password_file":
			ok = assign(&w.PasswordFile, keys[name], bad.under(name)) && ok
		case isTable:
			bad.under(name).add("is a table: a name with a dot in it must stand in double quotes")
			ok = false
		default:
			bad.under(name).add("unknown key: there are only smarthost, password_file")
			ok = false
		}
	}
	if _, given := keys["smarthost"]; ok && !given {
		bad.add(`has no smarthost: write one, or smarthost = "" for the domain's own mail servers`)
		ok = false
	}
	return w, ok
}

// ways brings the domains of a table of Ways into normal form, and judges each.
func ways(p *map[string]Way) func(complaints) {
	return func(bad complaints) {
		normal := make(map[string]Way, len(*p))
		for _, name := range slices.Sorted(maps.Keys(*p)) {
			domain, err := address.Domain(name)
			_, twice := normal[domain]
			switch {
			case err != nil:
				bad.under(name).add("%v", err)
			case twice:
				bad.under(name).add("stands twice: %s is the same domain", domain)
			}
			(*p)[name].check(bad.under(name))
			normal[domain] = (*p)[name]
		}
		*p = normal
	}
}

// lmtpPort is where LMTP servers listen by custom; RFC 2033 section 5 only rules out port 25.
const lmtpPort = 24

// lmtpServer checks "unix:/path", "tcp:host:port" or "host:port", and takes the "tcp:" away.
func lmtpServer(p *string) func(complaints) {
	return optional(p, func(s string) (string, error) {
		if path, ok := strings.CutPrefix(s, "unix:"); ok {
			return s, socketPath(path, "unix:/run/dovecot/lmtp")
		}
		host, port, err := smarthostAddress(strings.TrimPrefix(s, "tcp:"), lmtpPort)
		switch {
		case strings.ContainsAny(s, "/@"):
			err = errors.New(`write "unix:" and the path of a socket, or "tcp:host:port"`)
		case err == nil && port == 25:
			err = errors.New("port 25 is for SMTP: LMTP servers listen on a port of their own, like 24")
		}
		if err != nil {
			return "", err
		}
		return net.JoinHostPort(host, strconv.Itoa(port)), nil
	})
}
