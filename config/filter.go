package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// Filter says who is asked about mail of strangers.
type Filter struct {
	DNSBL        []string // zones of lists in DNS, each once
	Rspamd       Rspamd
	PasswordFile string   // as written; Load has read it into Rspamd.Password
	Milter       []string // "inet:host:port" or "unix:/path", each once, in their order
}

// Rspamd is the worker of rspamd that scans mail. The zero Rspamd means that there is none.
type Rspamd struct {
	URL      string // "http://host:port", "https://host:port" or "unix:/path"
	Password string `json:"-"` // from the password file, by Load
}

// String is the URL, with nothing else that fmt prints of a Rspamd.
func (r Rspamd) String() string { return r.URL }

// GoString keeps the password out of what %#v prints.
func (r Rspamd) GoString() string { return fmt.Sprintf("config.Rspamd(%q)", r.URL) }

// UnmarshalText reads a URL without path, user and query, or "unix:/path". Empty text is none. Errors
// do not quote text, which could have a password in it.
func (r *Rspamd) UnmarshalText(text []byte) error {
	s := strings.TrimSuffix(string(text), "/")
	switch path, unix := strings.CutPrefix(s, "unix:"); {
	case unix:
		if err := socketPath(path, "unix:/run/rspamd/normal.sock"); err != nil {
			return err
		}
	case s != "":
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
			return errors.New(`write the URL of rspamd's worker, like "http://127.0.0.1:11333", or "unix:" and the path of its socket`)
		}
		if u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
			return errors.New("has more in it than a host and a port: the password belongs into a file, named in password_file")
		}
	}
	*r = Rspamd{URL: s}
	return nil
}

// socketPath checks the path of a unix socket.
func socketPath(path, example string) error {
	switch {
	case !filepath.IsAbs(path) || strings.Contains(path, "\x00"):
		return fmt.Errorf(`write the whole path of the socket behind "unix:", like %q`, example)
	case len(path) > maxSocketPath:
		return fmt.Errorf("the path of the socket is longer than %d bytes", maxSocketPath)
	}
	return nil
}

// eachOnce brings the items of a list into normal form, and finds those that stand twice.
func eachOnce(p *[]string, parse func(string) (string, error)) func(complaints) {
	return func(bad complaints) {
		known := map[string]bool{}
		for i, s := range *p {
			v, err := parse(s)
			switch {
			case err != nil:
				bad.add("%q: %v", s, err)
				continue
			case known[v]:
				bad.add("%q stands twice", s)
			}
			known[v], (*p)[i] = true, v
		}
	}
}

func milterSocket(s string) (string, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return s, socketPath(path, "unix:/run/opendkim/opendkim.sock")
	}
	hostPort, ok := strings.CutPrefix(s, "inet:")
	host, port, err := smarthostAddress(hostPort, 0)
	if !ok || err != nil || port == 0 {
		return "", errors.New(`write "inet:" and a host and port, like "inet:127.0.0.1:8891", or "unix:" and the path of a socket`)
	}
	return "inet:" + net.JoinHostPort(host, strconv.Itoa(port)), nil
}

func (c *Config) checkFilter(doc *document) {
	if c.Filter.PasswordFile != "" && c.Filter.Rspamd.URL == "" && !doc.broken("filter.rspamd") {
		complaints{doc, toml.Key{"filter", "password_file"}}.add("is of no use without rspamd")
	}
}
