package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/miekg/dns"
)

const (
	// udpSize fits into every network's packets without fragments (RFC 9715 section 3.1).
	udpSize = 1232
	// rounds is how often a server that did not answer is asked within one lookup.
	rounds = 2
)

// ask puts q to the servers in turn until one answers. A server that says that it cannot answer,
// or says nonsense, is left alone after that; one that said nothing is asked again when all
// others have been. The
// server avoid is not asked if there is any other. The error is always Temporary.
func (r *Resolver) ask(ctx context.Context, q question, avoid string) (response, *Error) {
	list := r.servers.order(r.now())
	if len(list) > 1 {
		list = without(list, avoid)
	}
	last := q.fail(Temporary, "", errors.New("no name server to ask"))
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return response{}, q.fail(Temporary, "", context.Cause(ctx))
	}
	for range rounds {
		var silent []string
		for _, server := range list {
			resp, err := r.exchange(ctx, server, q)
			if err == nil {
				r.servers.answered(server)
				resp.server = server
				return resp, nil
			}
			last = q.fail(Temporary, server, err)
			if ctx.Err() != nil {
				return response{}, last // our time was too short, which is not the server's failure
			}
			if !spoke(err) {
				silent = append(silent, server)
				r.servers.failed(server, r.now())
			}
		}
		list = silent
	}
	return response{}, last
}

// spoke reports whether err is something that a server said. It is then well, whatever the owner
// of a domain made it say.
func spoke(err error) bool {
	_, code := errors.AsType[rcodeError](err)
	return code || errors.Is(err, errMalformed) || errors.Is(err, errChain)
}

func without(list []string, avoid string) []string {
	var rest []string
	for _, server := range list {
		if server != avoid {
			rest = append(rest, server)
		}
	}
	return rest
}

// exchange gets one server's answer, by UDP and, where that is truncated, by TCP. A server too
// old for EDNS is asked without it (RFC 6891 section 7).
func (r *Resolver) exchange(ctx context.Context, server string, q question) (response, error) {
	query := newQuery(q)
	resp, err := r.roundTrip(ctx, "udp", server, query)
	if code, ok := errors.AsType[rcodeError](err); ok &&
		(code == dns.RcodeFormatError || code == dns.RcodeNotImplemented || code == dns.RcodeBadVers) {
		query.Extra = nil
		resp, err = r.roundTrip(ctx, "udp", server, query)
	}
	if errors.Is(err, errTruncated) {
		resp, err = r.roundTrip(ctx, "tcp", server, query)
	}
	return resp, err
}

// newQuery asks for recursion and, by AD, to be told whether the answer was validated. It does
// not set DO: the signatures would only make the responses long.
func newQuery(q question) *dns.Msg {
	m := &dns.Msg{Question: []dns.Question{{Name: q.name, Qtype: q.typ, Qclass: dns.ClassINET}}}
	m.RecursionDesired = true
	m.AuthenticatedData = true
	m.SetEdns0(udpSize, false)
	return m
}

// roundTrip sends query once, with an ID and a local port that nobody can foresee (RFC 5452), and
// waits up to the resolver's timeout for its response.
func (r *Resolver) roundTrip(ctx context.Context, network, server string, query *dns.Msg) (response, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	query.Id = dns.Id()
	wire, err := query.Pack()
	if err != nil {
		return response{}, fmt.Errorf("packing the query: %w", err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, server)
	if err != nil {
		return response{}, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	q := question{query.Question[0].Name, query.Question[0].Qtype}
	resp, err := converse(conn, wire, q)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx) // plainer than the closed connection that it led to
	}
	return resp, err
}

// converse writes the query to conn, which is of UDP or TCP, and reads until its response is there.
func converse(conn net.Conn, wire []byte, q question) (response, error) {
	id := binary.BigEndian.Uint16(wire)
	if _, stream := conn.(*net.TCPConn); stream {
		framed := binary.BigEndian.AppendUint16(nil, uint16(len(wire)))
		if _, err := conn.Write(append(framed, wire...)); err != nil {
			return response{}, err
		}
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return response{}, err
		}
		buf := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(conn, buf); err != nil {
			return response{}, err
		}
		resp, err := parse(buf, id, q)
		if errors.Is(err, errTruncated) {
			err = errMalformed // nothing is left to fall back to
		}
		return resp, err
	}
	if _, err := conn.Write(wire); err != nil {
		return response{}, err
	}
	buf := make([]byte, 4096) // some servers send more than they were asked to
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return response{}, err
		}
		resp, err := parse(buf[:n], id, q)
		if !errors.Is(err, errNotOurs) {
			return resp, err
		}
	}
}
