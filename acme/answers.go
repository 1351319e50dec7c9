package acme

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// ChallengePath is where a CA asks by HTTP-01 (RFC 8555 section 8.3).
const ChallengePath = "/.well-known/acme-challenge/"

// alpnProtocol is what a CA asks for by TLS-ALPN-01 (RFC 8737 section 6.2).
const alpnProtocol = "acme-tls/1"

// Answers are what a CA is told while it checks that a name is ours. It is safe for concurrent
// use; its zero value has none.
type Answers struct {
	// Webroot is the folder of another web server that has port 80; "" for none. Answers are files
	// in it, too. It is not changed once there are any.
	Webroot string

	mu    sync.Mutex
	texts map[string]string           // by the token of the challenge
	certs map[string]*tls.Certificate // by the name that is checked
}

// ServeHTTP answers a CA that asks by HTTP-01; everybody else gets 404.
func (a *Answers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	token, ok := strings.CutPrefix(r.URL.Path, ChallengePath)
	a.mu.Lock()
	text, found := a.texts[token]
	a.mu.Unlock()
	if !ok || !found || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.Error(w, "404: there is nothing here", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	io.WriteString(w, text)
}

// TLSConfig returns base with answers to a CA that asks by TLS-ALPN-01. Such a connection ends
// with the handshake: there is nothing to say on it.
func (a *Answers) TLSConfig(base *tls.Config) *tls.Config {
	c := base.Clone()
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if !slices.Equal(hello.SupportedProtos, []string{alpnProtocol}) {
			return nil, nil
		}
		a.mu.Lock()
		cert := a.certs[strings.ToLower(hello.ServerName)]
		a.mu.Unlock()
		if cert == nil {
			return nil, fmt.Errorf("no challenge is open for %q", hello.ServerName)
		}
		return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{alpnProtocol}, Certificates: []tls.Certificate{*cert}}, nil
	}
	return c
}

// put opens an answer by HTTP-01.
func (a *Answers) put(token, text string) error {
	if strings.Trim(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" || token == "" {
		return fmt.Errorf("the token %q of the certificate authority is not one", token) // it becomes a file's name
	}
	a.mu.Lock()
	if a.texts == nil {
		a.texts = make(map[string]string)
	}
	a.texts[token] = text
	a.mu.Unlock()
	if a.Webroot == "" {
		return nil
	}
	if err := a.putFile(token, text); err != nil {
		return fmt.Errorf("%w: relayd must be allowed to write there; under systemd add ReadWritePaths=%s to its unit", err, a.Webroot)
	}
	return nil
}

// putFile writes a file that another user's web server can read, whatever the umask is.
func (a *Answers) putFile(token, text string) error {
	dir := a.Webroot
	for _, part := range strings.Split(strings.Trim(ChallengePath, "/"), "/") {
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err == nil {
			err = os.Chmod(dir, 0o755)
			if err != nil {
				return err
			}
		} else if !os.IsExist(err) {
			return err
		}
	}
	// A link in its place would be the web server's, and lead to what is relayd's.
	file := filepath.Join(dir, token)
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		return err
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text)
	return errors.Join(err, f.Chmod(0o644), f.Close())
}

func (a *Answers) remove(token string) error {
	a.mu.Lock()
	_, ours := a.texts[token]
	delete(a.texts, token)
	a.mu.Unlock()
	if a.Webroot == "" || !ours {
		return nil
	}
	return os.Remove(filepath.Join(a.Webroot, ChallengePath, token))
}

// putCertificate opens an answer by TLS-ALPN-01; nil closes it.
func (a *Answers) putCertificate(name string, cert *tls.Certificate) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.certs == nil {
		a.certs = make(map[string]*tls.Certificate)
	}
	if cert == nil {
		delete(a.certs, name)
		return
	}
	a.certs[name] = cert
}
