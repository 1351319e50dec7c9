package acme

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestProviders(t *testing.T) {
	dir := t.TempDir()
	type values = map[string]string
	for _, c := range []struct {
		name   string
		values values
		want   string // in the error; "" for none
	}{
		{"exec", values{"program": "/bin/true", "wait": "2m"}, ""},
		{"httpreq", values{"endpoint": "https://dns.example", "username": "u", "password": "p"}, ""},
		{"acmedns", values{"api_base": "https://auth.example", "storage_path": filepath.Join(dir, "acmedns")}, ""},
		{"rfc2136", values{"nameserver": "192.0.2.1", "tsig_key": "k.", "tsig_secret": "c2VjcmV0", "zone": "example.org", "ttl": "60"}, ""},
		{"cloudflare", values{"token": "t"}, ""},
		{"hetzner", values{"token": "t"}, ""},
		{"desec", values{"token": "t"}, ""},
		{"digitalocean", values{"token": "t"}, ""},
		{"gandiv5", values{"token": "t"}, ""},
		{"ovh", values{"endpoint": "ovh-eu", "application_key": "a", "application_secret": "b", "consumer_key": "c"}, ""},

		{"godaddy", nil, "provider \"godaddy\" is not known: there are acmedns, cloudflare, "},
		{"cloudflare", nil, "cloudflare needs token (a secret may stand in a file that token_file names)"},
		{"ovh", values{"endpoint": "ovh-eu"}, "ovh needs application_key and application_secret and consumer_key"},
		{"hetzner", values{"token": "t", "tokn": "t"}, "hetzner has no setting \"tokn\": there are token and wait"},
		{"exec", values{"program": "/nonexistent"}, "program: "},
		{"exec", values{"program": "x", "wait": "soon"}, "wait: \"soon\" is not a time"},
		{"exec", values{"program": "x", "wait": "2h"}, "wait: \"2h\" is not a time"},
		{"httpreq", values{"endpoint": "dns"}, "endpoint: "},
		{"httpreq", values{"endpoint": "https://u:secret@dns example"}, "endpoint: "},
		{"rfc2136", values{"nameserver": "192.0.2.1", "ttl": "x"}, "ttl: \"x\" is not a whole number"},
	} {
		err := CheckProvider(c.name, c.values)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %v: %v", c.name, c.values, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret@") {
			t.Errorf("%s: a password is shown: %v", c.name, err)
		}
	}
}

// newTestClient is a client of a server that answers as it likes.
func newTestClient(t *testing.T, directory string) *Client {
	c, err := NewClient(ClientOptions{
		Directory: directory, Dir: t.TempDir(), Challenge: "http-01", Answers: &Answers{},
		Write: func(file string, data []byte) error { return os.WriteFile(file, data, 0o600) }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestRetryAfter: the CA's wish for a pause is heeded whatever it is about.
func TestRetryAfter(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7200")
		http.Error(w, "busy", http.StatusServiceUnavailable)
	}))
	defer server.Close()
	c := newTestClient(t, server.URL)
	c.transport = server.Client().Transport.(*http.Transport)
	_, err := c.Obtain(t.Context(), "mx.example.org", nil)
	if wait, ok := errors.AsType[*WaitError](err); !ok || wait.After != 2*time.Hour {
		t.Errorf("%v", err)
	}
}

// TestASilentCAIsLeft: the library knows no context, but its requests do.
func TestASilentCAIsLeft(t *testing.T) {
	arrived := make(chan struct{}, 1)
	server := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()
	c := newTestClient(t, server.URL)
	c.transport = server.Client().Transport.(*http.Transport)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := c.Obtain(ctx, "mx.example.org", nil)
		done <- err
	}()
	<-arrived
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it waits on")
	}
}

// TestAnEndlessAnswerEnds: what a CA may send is bounded.
func TestAnEndlessAnswerEnds(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := io.WriteString(w, strings.Repeat(" ", 1<<16)); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	c := newTestClient(t, server.URL)
	c.transport = server.Client().Transport.(*http.Transport)
	if _, err := c.Window(t.Context(), nil); err == nil {
		t.Error("no error")
	}
}

func FuzzRetryAfter(f *testing.F) {
	const date = "Sun, 06 Nov 1994 08:49:37 GMT"
	for value, want := range map[string]time.Duration{
		"120": 2 * time.Minute, "Sun, 06 Nov 1994 09:49:37 GMT": time.Hour, "Sun, 06 Nov 1994 07:49:37 GMT": 0,
		"": 0, "-1": 0, "soon": 0, "4294967295": longestPause, "99999999999999999999": 0, "Sun, 06 Nov 2094 09:49:37 GMT": longestPause,
	} {
		if got := retryAfter(value, date); got != want {
			f.Errorf("%q is %v", value, got)
		}
		f.Add(value, date)
	}
	f.Fuzz(func(t *testing.T, value, date string) {
		if got := retryAfter(value, date); got < 0 || got > longestPause {
			t.Errorf("%q at %q is %v", value, date, got)
		}
	})
}

func TestTheAccountIsKeptForItsCAAlone(t *testing.T) {
	c := newTestClient(t, "https://one.example/dir")
	u, err := c.user()
	if err != nil {
		t.Fatal(err)
	}
	if err := u.save(c.account(), c.opt.Write); err != nil {
		t.Fatal(err)
	}
	again, err := c.user()
	if err != nil || again.Key != u.Key {
		t.Errorf("another key, %v", err)
	}
	c.opt.Directory = "https://two.example/dir"
	if other, err := c.user(); err != nil || other.Key == u.Key {
		t.Errorf("the key of another CA, %v", err)
	}
	if data, err := json.Marshal(u); err != nil || !strings.Contains(string(data), "PRIVATE KEY") {
		t.Errorf("%s, %v", data, err)
	}
}

// TestAPanicOfTheLibraryIsAFailure: what a CA says must not end relayd, and with it every session.
func TestAPanicOfTheLibraryIsAFailure(t *testing.T) {
	c := newTestClient(t, "https://ca.example/dir")
	for range 2 { // it keeps no other order from beginning
		_, err := do(t.Context(), c, func(context.Context, *session) (int, error) { panic("poison") })
		if err == nil || !strings.Contains(err.Error(), "poison") {
			t.Errorf("%v", err)
		}
	}
}
