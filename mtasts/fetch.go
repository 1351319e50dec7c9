package mtasts

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"time"
)

const (
	// fetchTime bounds a fetch from the lookup to the last byte (RFC 8461 section 3.3).
	fetchTime = time.Minute
	// dialTime is how long one address has to accept a connection before the next one is tried.
	dialTime = 10 * time.Second
	// maxResponse bounds an HTTP response, in bytes: header, policy, and what chunks cost.
	maxResponse = 32<<10 + 2*maxBody
)

// fetch gets a domain's policy from its policy host. It speaks HTTP/1.1 on a connection of its own
// rather than through an http.Client: there are to be no redirects, no proxy and no caching (RFC
// 8461 section 3.3), and every step has to end with ctx.
func (c *Cache) fetch(ctx context.Context, domain string) (Policy, *Error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	conn, err := c.connect(ctx, "mta-sts."+domain)
	if err != nil {
		result := FetchError
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			result = WebPKIInvalid
		}
		return Policy{}, &Error{domain, result, err}
	}
	defer conn.NetConn().Close() // conn.Close may wait 5 s to say goodbye
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	policy, err := get(conn, "mta-sts."+domain)
	if err == nil {
		return policy, nil
	}
	result := FetchError
	if _, ok := errors.AsType[invalidError](err); ok {
		result = PolicyInvalid
	} else if ctx.Err() != nil {
		err = context.Cause(ctx) // plainer than the closed connection that it led to
	}
	return Policy{}, &Error{domain, result, err}
}

// connect returns a connection to a policy host whose certificate is verified.
func (c *Cache) connect(ctx context.Context, host string) (*tls.Conn, error) {
	plain, err := c.dial(ctx, host)
	if err != nil {
		return nil, err
	}
	conn := tls.Client(plain, &tls.Config{
		ServerName: host, RootCAs: c.opt.RootCAs, Time: c.opt.Now,
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		plain.Close()
		return nil, fmt.Errorf("TLS with %s: %w", host, err)
	}
	return conn, nil
}

// dial tries the addresses of host in turn, IPv4 first: a small server's IPv6 is often broken.
func (c *Cache) dial(ctx context.Context, host string) (net.Conn, error) {
	answer, err := c.opt.Resolver.IP(ctx, host, c.opt.Network)
	if err != nil {
		return nil, err
	}
	ips := slices.SortedStableFunc(slices.Values(answer.Records), func(a, b netip.Addr) int {
		return cmp.Compare(a.Unmap().BitLen(), b.Unmap().BitLen())
	})
	err = fmt.Errorf("%s has no address", host)
	for _, ip := range ips {
		conn, dialErr := c.dialOne(ctx, netip.AddrPortFrom(ip.Unmap(), uint16(c.opt.Port)))
		if dialErr == nil {
			return conn, nil
		}
		err = dialErr
		if ctx.Err() != nil {
			break
		}
	}
	return nil, err
}

func (c *Cache) dialOne(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	return c.opt.Dial(ctx, "tcp", addr.String())
}

// An invalidError is about a response that came, but is not a policy.
type invalidError struct{ error }

// get asks for the policy over conn and reads it.
func get(conn net.Conn, host string) (Policy, error) {
	req, err := http.NewRequest(http.MethodGet, "https://"+host+"/.well-known/mta-sts.txt", nil)
	if err != nil {
		return Policy{}, err
	}
	req.Close = true
	req.Header.Set("User-Agent", "relayd")
	if err := req.Write(conn); err != nil {
		return Policy{}, fmt.Errorf("asking %s: %w", host, err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, maxResponse)), req)
	if err != nil {
		return Policy{}, fmt.Errorf("response of %s: %w", host, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Policy{}, fmt.Errorf("%s answers %.100q", host, resp.Status)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != "text/plain" {
		return Policy{}, invalidError{fmt.Errorf("media type %.100q is not text/plain", resp.Header.Get("Content-Type"))}
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return Policy{}, fmt.Errorf("response of %s: %w", host, err)
	}
	policy, err := Parse(text)
	if err != nil {
		return Policy{}, invalidError{err}
	}
	return policy, nil
}
