package mtasts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"relayd/dns"
)

// plain answers with a status, a media type and a body.
func plain(status int, kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = []string{kind}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestResponses(t *testing.T) {
	w := newWorld(t)
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		mode    Mode
		result  Result
	}{
		"a policy":            {plain(200, "text/plain", enforced), Enforce, ""},
		"with parameters":     {plain(200, "TEXT/PLAIN; charset=iso-8859-1", enforced), Enforce, ""},
		"mode none":           {plain(200, "text/plain", "version: STSv1\nmode: none\nmax_age: 60"), None, ""},
		"not there":           {plain(404, "text/plain", enforced), None, FetchError},
		"server error":        {plain(500, "text/plain", enforced), None, FetchError},
		"no content":          {plain(204, "text/plain", ""), None, FetchError},
		"partial content":     {plain(206, "text/plain", enforced), None, FetchError},
		"web page":            {plain(200, "text/html", enforced), None, PolicyInvalid},
		"no media type":       {plain(200, "", enforced), None, PolicyInvalid},
		"nonsense":            {plain(200, "text/plain", "hello"), None, PolicyInvalid},
		"empty":               {plain(200, "text/plain", ""), None, PolicyInvalid},
		"as long as can be":   {plain(200, "text/plain", enforced+strings.Repeat("\n", maxBody-len(enforced))), Enforce, ""},
		"too long":            {plain(200, "text/plain", enforced+strings.Repeat("\n", maxBody-len(enforced)+1)), None, PolicyInvalid},
		"much too long":       {plain(200, "text/plain", strings.Repeat("x: y\n", 1<<20)), None, PolicyInvalid},
		"endless header":      {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 1<<20)) }, None, FetchError},
		"cut off":             {cutOff, None, FetchError},
		"redirect to a copy":  {redirect, None, FetchError},
		"redirect, permanent": {plain(301, "text/plain", enforced), None, FetchError},
		"in chunks":           {chunks, Enforce, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w.handle(c.handler)
			p, err := w.open().fetch(t.Context(), "example.com")
			if p.Mode != c.mode || (err == nil) != (c.result == "") || err != nil && err.Result != c.result {
				t.Errorf("%v, %v", p, err)
			}
		})
	}
}

func cutOff(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, enforced)
}

func redirect(w http.ResponseWriter, req *http.Request) {
	if req.URL.RawQuery == "" {
		http.Redirect(w, req, req.URL.Path+"?again", http.StatusFound)
		return
	}
	plain(200, "text/plain", enforced)(w, req)
}

func chunks(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	for line := range strings.Lines(enforced) {
		_, _ = io.WriteString(w, line)
		w.(http.Flusher).Flush()
	}
}

func TestCertificates(t *testing.T) {
	for name, c := range map[string]struct {
		names  []string
		change func(*world, *Options)
		want   Result
	}{
		"right":                  {[]string{"mta-sts.example.com"}, nil, ""},
		"wildcard":               {[]string{"*.example.com"}, nil, ""},
		"of the domain itself":   {[]string{"example.com"}, nil, WebPKIInvalid},
		"of another host":        {[]string{"mta-sts.example.org"}, nil, WebPKIInvalid},
		"of an unknown issuer":   {nil, func(_ *world, o *Options) { o.RootCAs = x509.NewCertPool() }, WebPKIInvalid},
		"expired":                {nil, func(w *world, _ *Options) { w.clock.Advance(366 * 24 * time.Hour) }, WebPKIInvalid},
		"not valid yet":          {nil, func(w *world, _ *Options) { w.clock.Advance(-2 * time.Hour) }, WebPKIInvalid},
		"server with old TLS":    {nil, func(w *world, _ *Options) { w.server.TLS.MaxVersion = tls.VersionTLS11 }, FetchError},
		"server that is not TLS": {nil, func(_ *world, o *Options) { o.Dial = nonsense }, FetchError},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.names...)
			cache := w.open(func(o *Options) {
				if c.change != nil {
					c.change(w, o)
				}
			})
			_, err := cache.fetch(t.Context(), "example.com")
			if (err == nil) != (c.want == "") || err != nil && err.Result != c.want {
				t.Error(err)
			}
		})
	}
}

// nonsense connects to something that speaks another protocol.
func nonsense(context.Context, string, string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	go func() {
		defer theirs.Close()
		go func() { _, _ = io.Copy(io.Discard, theirs) }()
		_, _ = io.WriteString(theirs, "220 mx.example.com ESMTP\r\n")
	}()
	return ours, nil
}

// The connection goes where the resolver says, one address after the other.
func TestAddresses(t *testing.T) {
	w := newWorld(t)
	w.ips = []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("::ffff:192.0.2.2")}
	var tried []string
	var mu sync.Mutex
	c := w.open(func(o *Options) {
		o.Port = 0
		o.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			tried = append(tried, network+" "+addr)
			if len(tried) < 3 {
				return nil, errors.New("refused")
			}
			return new(net.Dialer).DialContext(ctx, "tcp", w.server.Listener.Addr().String())
		}
	})
	w.want(c, "example.com", Enforce, "", 1)
	if want := []string{"tcp 192.0.2.1:443", "tcp 192.0.2.2:443", "tcp [2001:db8::1]:443"}; !slices.Equal(tried, want) {
		t.Errorf("tried %q", tried)
	}

	w.ips = nil
	w.announce("none.test", "v=STSv1; id=1")
	w.want(c, "none.test", None, FetchError, 1)
	if _, err := c.Policy(t.Context(), "none.test"); !errors.Is(err, dns.ErrNoData) {
		t.Errorf("%v hides its cause", err)
	}
}

// A policy host that accepts the connection and says no more has a minute, one that does not even
// do that has ten seconds per address.
func TestTarpits(t *testing.T) {
	silent := func(ctx context.Context, _, _ string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, theirs) }() // ends when ours is closed
		return ours, nil
	}
	hole := func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for name, c := range map[string]struct {
		dial      func(context.Context, string, string) (net.Conn, error)
		addresses int
		want      time.Duration
	}{
		"silent":             {silent, 1, fetchTime},
		"one black hole":     {hole, 1, dialTime},
		"three black holes":  {hole, 3, 3 * dialTime},
		"twenty black holes": {hole, 20, fetchTime},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newFarWorld(t)
				w.ips = nil
				for i := range c.addresses {
					w.ips = append(w.ips, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
				}
				start := time.Now()
				w.want(w.open(c.dial), "example.com", None, FetchError, 0)
				if took := time.Since(start); took != c.want {
					t.Errorf("took %v", took)
				}
			})
		})
	}
}

// A policy host that trickles its response is cut off like one that is silent.
func TestTrickle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cert, pool := certificate(t, time.Now(), "mta-sts.example.com")
		var peer sync.WaitGroup
		defer peer.Wait()
		cache, err := Open(Options{Resolver: newFarWorld(t), RootCAs: pool, Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			peer.Go(func() { trickle(tls.Server(theirs, &tls.Config{Certificates: []tls.Certificate{cert}})) })
			return ours, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer cache.Close()
		start := time.Now()
		_, err = cache.Policy(t.Context(), "example.com")
		if took := time.Since(start); took != fetchTime || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v after %v", err, took)
		}
	})
}

// trickle sends a header field each second.
func trickle(conn *tls.Conn) {
	defer conn.NetConn().Close()
	buf := make([]byte, 4096)
	_, err := conn.Read(buf)
	for text := "HTTP/1.1 200 OK\r\n"; err == nil; text = "X: y\r\n" {
		_, err = io.WriteString(conn, text)
		time.Sleep(time.Second)
	}
}
