package config

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

// secretSuffix marks a key of acme.dns whose value is the name of a file with the value in it.
const secretSuffix = "_file"

// checkACME judges what the challenge needs. Whether a provider has all its settings is for room
// acme to say.
func (c *Config) checkACME(doc *document) {
	if doc.broken("acme.challenge") {
		return
	}
	challenge := "acme.challenge"
	if !doc.sound(challenge) {
		challenge = "acme.enabled"
	}
	only := func(key, value, where string) {
		if doc.sound(key) && value != "" && c.ACME.Challenge != where {
			doc.complaints(key).add("is only for challenge = %q, and the challenge is %q", where, c.ACME.Challenge)
		}
	}
	only("acme.provider", c.ACME.Provider, ChallengeDNS)
	only("acme.webroot", c.ACME.Webroot, ChallengeHTTP)
	c.checkACMENames(doc)
	if !c.ACME.Enabled {
		return
	}
	switch {
	case c.ACME.Challenge == ChallengeHTTP && len(c.Listen.HTTP) == 0 && c.ACME.Webroot == "" && !doc.broken("listen.http") && !doc.broken("acme.webroot"):
		doc.complaints(challenge).add(`http-01 needs a listener: write http = [":80"] under [listen], or the webroot of the server that has port 80`)
	case c.ACME.Challenge == ChallengeALPN && len(c.Listen.HTTPS) == 0 && !doc.broken("listen.https"):
		doc.complaints(challenge).add(`tls-alpn-01 needs a listener: write https = [":443"] under [listen]`)
	case c.ACME.Challenge == ChallengeDNS && c.ACME.Provider == "" && !doc.broken("acme.provider"):
		doc.complaints(challenge).add("dns-01 needs the name of your DNS provider in acme.provider")
	}
}

func (c *Config) checkACMENames(doc *document) {
	if !doc.sound("acme.names") {
		return
	}
	for _, name := range c.ACME.Names {
		switch {
		case name == c.Hostname:
			doc.complaints("acme.names").add("%q is the hostname, which has a certificate anyway", name)
		case strings.HasPrefix(name, "*.") && c.ACME.Challenge != ChallengeDNS:
			doc.complaints("acme.names").add("a wildcard like %q can only be proved by challenge = %q", name, ChallengeDNS)
		}
	}
}

// certificateNames checks names that a certificate can be for.
func certificateNames(p *[]string) func(complaints) {
	return func(bad complaints) {
		for i, s := range *p {
			rest, wildcard := strings.CutPrefix(s, "*.")
			name, err := qualified(rest)
			if err == nil && strings.Contains(name, "_") {
				err = fmt.Errorf("%q is not a host name: letters, digits, hyphens and dots are allowed", s)
			}
			if err != nil {
				bad.add("%v", err)
				continue
			}
			if wildcard {
				name = "*." + name
			}
			if slices.Contains((*p)[:i], name) {
				bad.add("%q stands twice", s)
			}
			(*p)[i] = name
		}
	}
}

func webroot(p *string) func(complaints) {
	return optional(p, func(s string) (string, error) {
		if !filepath.IsAbs(s) || strings.Contains(s, "\x00") {
			return "", errors.New(`must be the whole path of a folder, like "/var/www/html"`)
		}
		return filepath.Clean(s), nil
	})
}

// readSecrets puts the secrets of the DNS provider in the place of the names of their files.
func (c *Config) readSecrets(doc *document) {
	if !doc.sound("acme.dns") {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(c.ACME.DNS)) {
		plain, isFile := strings.CutSuffix(key, secretSuffix)
		if !isFile {
			continue
		}
		bad := complaints{doc, toml.Key{"acme", "dns", key}}
		if _, both := c.ACME.DNS[plain]; both {
			bad.add("%s stands in this table as well: keep one of the two", plain)
			continue
		}
		file := c.ACME.DNS[key]
		delete(c.ACME.DNS, key)
		c.ACME.DNS[plain] = c.readSecret(file, "secret", bad)
		c.ACME.secrets = append(c.ACME.secrets, c.beside(file))
	}
}

// HoldsSecrets reports whether the file itself holds settings of the DNS provider, which may be secrets.
func (c *Config) HoldsSecrets() bool { return len(c.ACME.DNS) > len(c.ACME.secrets) }
