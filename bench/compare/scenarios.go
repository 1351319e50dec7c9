package main

import (
	"crypto/tls"
	"time"

	"relayd/bench/traffic"
)

// A scenario is one kind of traffic.
type scenario struct {
	name, about   string
	submit        bool // by a user, with TLS, password and signature; else from the world, to be forwarded
	sessions      int
	perConnection int
	size          int // of a body in bytes
	rcpts         int // of each message; 1 when 0
	dests         int // destinations that messages go to in turn; 1 when 0
	destTLS       bool
	alone         bool // a message is sent when the one before has arrived
	pipelining    bool
	slow          int     // messages of a hundred that the destination answers a second late
	refusing      int     // messages of a hundred that it refuses
	settings      bool    // relayd is measured in its other settings too
	idle          bool    // nothing is sent
	longer        float64 // so many times as long as others
	extra         bool    // only when it is asked for by -run
}

const kib = 1 << 10

// scenarios are all that there are, in the order in which they run.
var scenarios = []scenario{
	{name: "idle", about: "memory before the first message", idle: true},
	{name: "forward-1", about: "forwarding, 20 sessions, 4 KiB, one message a connection", sessions: 20, perConnection: 1, size: 4 * kib, settings: true},
	{name: "forward-50", about: "forwarding, 20 sessions, 4 KiB, 50 messages a connection", sessions: 20, perConnection: 50, size: 4 * kib, settings: true},
	{name: "forward-tls", about: "as forward-1, to a destination that offers STARTTLS", sessions: 20, perConnection: 1, size: 4 * kib, destTLS: true},
	{name: "submit-1", about: "submission on port 465: TLS, password, DKIM with RSA-2048; 20 sessions, 4 KiB, one message a connection",
		submit: true, sessions: 20, perConnection: 1, size: 4 * kib, longer: 2},
	{name: "submit-50", about: "as submit-1, 50 messages a connection", submit: true, sessions: 20, perConnection: 50, size: 4 * kib, longer: 2},
	{name: "lone", about: "forwarding, one session, 4 KiB, each message when the one before has arrived", sessions: 1, perConnection: 50, size: 4 * kib, alone: true},
	{name: "big", about: "forwarding, 4 sessions, 2 MB, one message a connection", sessions: 4, perConnection: 1, size: 2000 * 1000},
	{name: "rcpt100", about: "submission, 2 sessions, 4 KiB, 10 messages a connection, each to 100 recipients at one destination",
		submit: true, sessions: 2, perConnection: 10, size: 4 * kib, rcpts: 100},
	{name: "aliases100", about: "forwarding, 2 sessions, 4 KiB, 100 aliases that lead to one destination",
		sessions: 2, perConnection: 10, size: 4 * kib, rcpts: 100, extra: true},
	{name: "several", about: "as forward-1, to 4 destinations", sessions: 20, perConnection: 1, size: 4 * kib, dests: 4, extra: true},
	{name: "slow", about: "as several; one answer of ten comes a second late", sessions: 20, perConnection: 1, size: 4 * kib, dests: 4, slow: 10, extra: true},
	{name: "refusing", about: "as several; one message of ten is refused", sessions: 20, perConnection: 1, size: 4 * kib, dests: 4, refusing: 10, extra: true},
	{name: "pipelined", about: "as forward-50, with PIPELINING", sessions: 20, perConnection: 50, size: 4 * kib, pipelining: true, extra: true},
}

// load is the traffic of a scenario.
func (s scenario) load() *traffic.Load {
	l := &traffic.Load{
		Addr: relayHost + ":25", Hello: "client.sender.test", From: "writer@sender.test", To: s.to,
		Size: s.size, Sessions: s.sessions, PerConnection: s.perConnection, Pipelining: s.pipelining, Alone: s.alone,
	}
	if s.submit {
		l.Addr, l.From = relayHost+":465", user
		l.TLS = &tls.Config{InsecureSkipVerify: true} // the certificate is the relay's affair
		l.User, l.Password = user, password
	}
	return l
}

// to are the recipients of a message: 1 or all of a destination.
func (s scenario) to(id int) []string {
	dest := id % max(1, s.dests)
	list := make([]string, 0, max(1, s.rcpts))
	for i := range max(1, s.rcpts) {
		alias, target := aliasTo((id/max(1, s.dests)+i)%recipients, dest)
		if s.submit {
			list = append(list, target)
		} else {
			list = append(list, alias+"@example.test")
		}
	}
	return list
}

// manner is how the destinations behave.
func (s scenario) manner(w *world) traffic.Manner {
	m := traffic.Manner{Slow: s.slow, Pause: time.Second, Refusing: s.refusing}
	if s.destTLS {
		m.TLS = &tls.Config{Certificates: []tls.Certificate{w.cert}}
	}
	return m
}
