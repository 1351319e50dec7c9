package acme

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	osexec "os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-acme/lego/v4/challenge"
	"github.com/go-acme/lego/v4/providers/dns/acmedns"
	"github.com/go-acme/lego/v4/providers/dns/cloudflare"
	"github.com/go-acme/lego/v4/providers/dns/desec"
	"github.com/go-acme/lego/v4/providers/dns/digitalocean"
	"github.com/go-acme/lego/v4/providers/dns/exec"
	"github.com/go-acme/lego/v4/providers/dns/gandiv5"
	"github.com/go-acme/lego/v4/providers/dns/hetzner"
	"github.com/go-acme/lego/v4/providers/dns/httpreq"
	"github.com/go-acme/lego/v4/providers/dns/ovh"
	"github.com/go-acme/lego/v4/providers/dns/rfc2136"
)

// waitSetting is the one setting that is ours and not a provider's: how long to wait instead of
// asking the zone's own servers whether they have the record.
const waitSetting = "wait"

// CheckProvider reports what is wrong with the settings of a DNS provider. It asks nobody.
func CheckProvider(name string, values map[string]string) error {
	_, err := newProvider(name, values)
	return err
}

// A dnsProvider puts records into a zone.
type dnsProvider struct {
	challenge.Provider
	wait time.Duration // instead of asking the zone's servers; -1: ask them
}

// newProvider makes a provider from its settings alone, without the environment's.
func newProvider(name string, values map[string]string) (*dnsProvider, error) {
	make := providers()[name]
	if make == nil {
		return nil, fmt.Errorf("provider %q is not known: there are %s", name, strings.Join(slices.Sorted(maps.Keys(providers())), ", "))
	}
	s := &settings{values: values, known: []string{waitSetting}}
	p := &dnsProvider{wait: -1}
	if text := values[waitSetting]; text != "" {
		wait, err := time.ParseDuration(text)
		if err != nil || wait < 0 || wait > maxWait {
			return nil, fmt.Errorf(`%s: %q is not a time from "0s" to %q`, waitSetting, text, maxWait)
		}
		p.wait = wait
	}
	var err error
	p.Provider, err = make(s)
	if wrong := s.err(name); wrong != nil {
		return nil, wrong // in the words of our settings, where the provider has its own
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// maxWait leaves most of attemptLimit to the rest.
const maxWait = 15 * time.Minute

// settings are a provider's, and which of them it knows.
type settings struct {
	values         map[string]string
	known, missing []string
}

// text is a setting that may be missing.
func (s *settings) text(key string) string {
	s.known = append(s.known, key)
	return s.values[key]
}

// need is one that may not.
func (s *settings) need(key string) string {
	v := s.text(key)
	if v == "" {
		s.missing = append(s.missing, key)
	}
	return v
}

// number sets *to where the setting is given.
func (s *settings) number(key string, to *int) error {
	v := s.text(key)
	if v == "" {
		return nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		return fmt.Errorf("%s: %q is not a whole number above 0", key, v)
	}
	*to = n
	return nil
}

// err is what a provider would not say, or not so well.
func (s *settings) err(provider string) error {
	for _, key := range slices.Sorted(maps.Keys(s.values)) {
		if !slices.Contains(s.known, key) {
			return fmt.Errorf("%s has no setting %q: there are %s and %s", provider, key, strings.Join(s.known[1:], ", "), waitSetting)
		}
	}
	if len(s.missing) > 0 {
		return fmt.Errorf("%s needs %s (a secret may stand in a file that %s_file names)", provider, strings.Join(s.missing, " and "), s.missing[0])
	}
	return nil
}

// providers are the makers of providers, by their names in lego. They are so few since all of
// them would make the program four times as large; exec and httpreq reach every other one.
func providers() map[string]func(*settings) (challenge.Provider, error) {
	return map[string]func(*settings) (challenge.Provider, error){
		"exec": func(s *settings) (challenge.Provider, error) {
			c := exec.NewDefaultConfig()
			c.Program, c.Mode = s.need("program"), ""
			if _, err := osexec.LookPath(c.Program); err != nil {
				return nil, fmt.Errorf("program: %w", err)
			}
			return exec.NewDNSProviderConfig(c)
		},
		"httpreq": func(s *settings) (challenge.Provider, error) {
			c := httpreq.NewDefaultConfig()
			endpoint, err := url.Parse(s.need("endpoint"))
			c.Endpoint, c.Username, c.Password = endpoint, s.text("username"), s.text("password")
			if err != nil || c.Endpoint.Host == "" { // err quotes the URL, which may have a password in it
				return nil, errors.New("endpoint: that is no URL")
			}
			return httpreq.NewDNSProviderConfig(c)
		},
		"acmedns": func(s *settings) (challenge.Provider, error) {
			c := acmedns.NewDefaultConfig()
			c.APIBase, c.StoragePath = s.need("api_base"), s.need("storage_path")
			return acmedns.NewDNSProviderConfig(c)
		},
		"rfc2136": newRFC2136,
		"cloudflare": func(s *settings) (challenge.Provider, error) {
			c := cloudflare.NewDefaultConfig()
			c.AuthToken, c.ZoneToken = s.need("token"), s.text("zone_token")
			return cloudflare.NewDNSProviderConfig(c)
		},
		"hetzner": func(s *settings) (challenge.Provider, error) {
			c := hetzner.NewDefaultConfig()
			c.APIToken = s.need("token")
			return hetzner.NewDNSProviderConfig(c)
		},
		"desec": func(s *settings) (challenge.Provider, error) {
			c := desec.NewDefaultConfig()
			c.Token = s.need("token")
			return desec.NewDNSProviderConfig(c)
		},
		"digitalocean": func(s *settings) (challenge.Provider, error) {
			c := digitalocean.NewDefaultConfig()
			c.AuthToken = s.need("token")
			return digitalocean.NewDNSProviderConfig(c)
		},
		"gandiv5": func(s *settings) (challenge.Provider, error) {
			c := gandiv5.NewDefaultConfig()
			c.PersonalAccessToken = s.need("token")
			return gandiv5.NewDNSProviderConfig(c)
		},
		"ovh": func(s *settings) (challenge.Provider, error) {
			c := ovh.NewDefaultConfig()
			c.APIEndpoint, c.ApplicationKey = s.need("endpoint"), s.need("application_key")
			c.ApplicationSecret, c.ConsumerKey = s.need("application_secret"), s.need("consumer_key")
			if len(s.missing) > 0 {
				return nil, errors.New("incomplete") // else it would look for a file of its own
			}
			return ovh.NewDNSProviderConfig(c)
		},
	}
}

func newRFC2136(s *settings) (challenge.Provider, error) {
	c := rfc2136.NewDefaultConfig()
	c.Nameserver = s.need("nameserver")
	c.TSIGAlgorithm = "hmac-sha256."
	if algorithm := s.text("tsig_algorithm"); algorithm != "" {
		c.TSIGAlgorithm = algorithm
	}
	c.TSIGKey, c.TSIGSecret = s.text("tsig_key"), s.text("tsig_secret")
	if zone := s.text("zone"); zone != "" {
		c.Zones = []string{zone}
	}
	if err := s.number("ttl", &c.TTL); err != nil {
		return nil, err
	}
	return rfc2136.NewDNSProviderConfig(c)
}
