package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	legoacme "github.com/go-acme/lego/v4/acme"
	"github.com/go-acme/lego/v4/acme/api"
	"github.com/go-acme/lego/v4/certcrypto"
	"github.com/go-acme/lego/v4/certificate"
	"github.com/go-acme/lego/v4/challenge"
	"github.com/go-acme/lego/v4/challenge/dns01"
	"github.com/go-acme/lego/v4/challenge/tlsalpn01"
	"github.com/go-acme/lego/v4/lego"
	legolog "github.com/go-acme/lego/v4/log"
	"github.com/go-acme/lego/v4/registration"
)

// ClientOptions are a Client's. All but Servers and, where they are not used, Provider and Settings
// are required.
type ClientOptions struct {
	Directory string // URL of the CA's directory (RFC 8555 section 7.1.1)
	Dir       string // where the account is kept
	Email     string // for the account; "" for none
	Challenge string // "http-01", "tls-alpn-01" or "dns-01"
	Answers   *Answers
	Provider  string            // for dns-01: its name in lego
	Settings  map[string]string // and its settings
	Servers   []string          // DNS servers that the zone is looked up at, "host:port"; none: the system's
	Write     func(file string, data []byte) error
	Log       *slog.Logger
}

// A Client is a CA that is reached by ACME. It trusts the system's roots, or those that the
// environment's SSL_CERT_FILE names. Only one order is under way at a time.
type Client struct {
	opt       ClientOptions
	provider  *dnsProvider // nil but for dns-01
	transport *http.Transport
	slot      chan struct{} // held while the library works
}

// NewClient makes a client; it asks nobody yet. One process has one, for the library's log and the
// DNS servers that it asks are the process's.
func NewClient(opt ClientOptions) (*Client, error) {
	c := &Client{opt: opt, slot: make(chan struct{}, 1), transport: &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: 30 * time.Second}).DialContext, TLSHandshakeTimeout: 30 * time.Second,
		ResponseHeaderTimeout: 30 * time.Second, IdleConnTimeout: 30 * time.Second, ForceAttemptHTTP2: true,
	}}
	if opt.Challenge == "dns-01" {
		var err error
		if c.provider, err = newProvider(opt.Provider, opt.Settings); err != nil {
			return nil, err
		}
	}
	legolog.Logger = slog.NewLogLogger(opt.Log.Handler(), slog.LevelDebug)
	return c, nil
}

// Obtain implements CA. The key is of EC P-256.
func (c *Client) Obtain(ctx context.Context, name string, replaced *x509.Certificate) (*Pair, error) {
	return do(ctx, c, func(ctx context.Context, s *session) (*Pair, error) {
		client, err := s.open(true)
		if err != nil {
			return nil, err
		}
		request := certificate.ObtainRequest{Domains: []string{name}, Bundle: true}
		if replaced != nil {
			if request.ReplacesCertID, err = certificate.MakeARICertID(replaced); err != nil {
				request.ReplacesCertID = ""
			}
		}
		res, err := client.Certificate.Obtain(request)
		if request.ReplacesCertID != "" && refusedOrder(err) {
			// It does not know the old one, or has one in its place already.
			request.ReplacesCertID = ""
			res, err = client.Certificate.Obtain(request)
		}
		if problem, ok := errors.AsType[*legoacme.ProblemDetails](err); ok && strings.HasSuffix(problem.Type, ":accountDoesNotExist") {
			return nil, errors.Join(fmt.Errorf("%w: a new account is made at the next try", err), os.Remove(c.account()))
		}
		if err != nil {
			return nil, err
		}
		return &Pair{Chain: res.Certificate, Key: res.PrivateKey}, nil
	})
}

// refusedOrder reports whether the CA has refused a request as such. What a challenge came to is
// no answer to a request, and must not be tried twice: a CA counts failed challenges.
func refusedOrder(err error) bool {
	problem, ok := errors.AsType[*legoacme.ProblemDetails](err)
	return ok && problem.Method == http.MethodPost && problem.HTTPStatus >= 400 && problem.HTTPStatus < 500 && problem.HTTPStatus != http.StatusTooManyRequests
}

// Window implements CA.
func (c *Client) Window(ctx context.Context, leaf *x509.Certificate) (Window, error) {
	return do(ctx, c, func(_ context.Context, s *session) (Window, error) {
		client, err := s.open(false)
		if err != nil {
			return Window{}, err
		}
		info, err := client.Certificate.GetRenewalInfo(certificate.RenewalInfoRequest{Cert: leaf})
		if errors.Is(err, api.ErrNoARI) {
			return Window{}, ErrNoWindow
		}
		if err != nil {
			return Window{}, err
		}
		return Window{Start: info.SuggestedWindow.Start, End: info.SuggestedWindow.End, Again: info.RetryAfter}, nil
	})
}

// open makes the library's client, with an account where one is needed.
func (s *session) open(account bool) (*lego.Client, error) {
	user, err := s.user()
	if err != nil {
		return nil, err
	}
	config := &lego.Config{
		CADirURL: s.opt.Directory, User: user, UserAgent: "relayd",
		HTTPClient:  &http.Client{Transport: s, Timeout: time.Minute},
		Certificate: lego.CertificateConfig{KeyType: certcrypto.EC256, Timeout: 2 * time.Minute},
	}
	client, err := lego.NewClient(config)
	if err != nil || !account {
		return client, err
	}
	if user.Registration == nil {
		if user.Registration, err = client.Registration.Register(registration.RegisterOptions{TermsOfServiceAgreed: true}); err != nil {
			return nil, fmt.Errorf("making an account: %w", err)
		}
		if err := user.save(s.account(), s.opt.Write); err != nil {
			return nil, fmt.Errorf("keeping the account: %w", err)
		}
		if client, err = lego.NewClient(config); err != nil { // the account's URL is its now
			return nil, err
		}
	}
	return client, s.prove(client)
}

// prove sets the way in which names are proved.
func (s *session) prove(client *lego.Client) error {
	switch s.opt.Challenge {
	case "http-01":
		return client.Challenge.SetHTTP01Provider(httpAnswers{s.opt.Answers})
	case "tls-alpn-01":
		return client.Challenge.SetTLSALPN01Provider(alpnAnswers{s.opt.Answers})
	}
	return client.Challenge.SetDNS01Provider(s.provider,
		dns01.CondOption(len(s.opt.Servers) > 0, dns01.AddRecursiveNameservers(s.opt.Servers)),
		dns01.WrapPreCheck(func(_, fqdn, value string, check dns01.PreCheckFunc) (bool, error) {
			if s.provider.wait >= 0 {
				select {
				case <-s.ctx.Done():
				case <-time.After(s.provider.wait):
				}
				return true, nil
			}
			if s.ctx.Err() != nil {
				return true, s.ctx.Err()
			}
			return check(fqdn, value)
		}))
}

// Timeout lets the library know the provider's times, which the wrapper would hide.
func (p *dnsProvider) Timeout() (timeout, interval time.Duration) {
	if p.wait >= 0 {
		return time.Minute, 0
	}
	if t, ok := p.Provider.(challenge.ProviderTimeout); ok {
		return t.Timeout()
	}
	return dns01.DefaultPropagationTimeout, dns01.DefaultPollingInterval
}

type httpAnswers struct{ *Answers }

func (a httpAnswers) Present(_, token, keyAuth string) error { return a.put(token, keyAuth) }
func (a httpAnswers) CleanUp(_, token, _ string) error       { return a.remove(token) }

type alpnAnswers struct{ *Answers }

func (a alpnAnswers) Present(domain, _, keyAuth string) error {
	cert, err := tlsalpn01.ChallengeCert(domain, keyAuth)
	if err != nil {
		return err
	}
	a.putCertificate(domain, cert)
	return nil
}

func (a alpnAnswers) CleanUp(domain, _, _ string) error {
	a.putCertificate(domain, nil)
	return nil
}

// A user is the account at a CA.
type user struct {
	Directory    string                 `json:"directory"`
	Email        string                 `json:"email"`
	Key          string                 `json:"key"` // PEM
	Registration *registration.Resource `json:"registration"`

	key crypto.PrivateKey
}

// GetEmail implements registration.User, as do the next two.
func (u *user) GetEmail() string { return u.Email }

// GetRegistration returns what the CA said of the account.
func (u *user) GetRegistration() *registration.Resource { return u.Registration }

// GetPrivateKey returns the account's key.
func (u *user) GetPrivateKey() crypto.PrivateKey { return u.key }

func (c *Client) account() string { return filepath.Join(c.opt.Dir, accountFile) }

// user reads the account of this CA, or begins a new one.
func (c *Client) user() (*user, error) {
	data, err := os.ReadFile(c.account())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading the account: %w", err)
	}
	u := &user{}
	if err == nil && json.Unmarshal(data, u) == nil && u.Directory == c.opt.Directory && u.Email == c.opt.Email {
		if u.key, err = certcrypto.ParsePEMPrivateKey([]byte(u.Key)); err == nil {
			return u, nil
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return &user{Directory: c.opt.Directory, Email: c.opt.Email, Key: string(text), key: key}, nil
}

func (u *user) save(file string, write func(string, []byte) error) error {
	data, err := json.MarshalIndent(u, "", "\t")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(file), 0o700)
	}
	if err != nil {
		return err
	}
	return write(file, append(data, '\n'))
}
