package smtpd

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// However many connections do nothing, somebody who wants to send gets one.
func TestThoseWhoOnlyHoldAPlaceMakeRoom(t *testing.T) {
	const full = "421 4.7.0 Too many connections"
	const forOthers = "421 4.7.0 mx.example.test has too many connections"
	hello := func(d *peer) { d.do("EHLO client.test", "250") }
	secret := func(d *peer) { d.startTLS(); hello(d) }
	for name, c := range map[string]struct {
		holds      func(d *peer)
		submission bool
		goesOn     string // what it says, and is heard; empty where it makes room
	}{
		"silence":         {},
		"EHLO":            {holds: hello},
		"NOOP":            {holds: func(d *peer) { time.Sleep(9 * time.Second); d.do("NOOP", "250") }},
		"half a command":  {holds: func(d *peer) { d.send("EHL") }},
		"a transaction":   {holds: func(d *peer) { hello(d); d.do("MAIL FROM:<a@client.test>", "250") }},
		"STARTTLS":        {holds: func(d *peer) { hello(d); d.do("STARTTLS", "220") }},
		"a body":          {holds: func(d *peer) { hello(d); d.body(); d.send("x\r\n") }, goesOn: "."},
		"a message":       {holds: func(d *peer) { hello(d); time.Sleep(9 * time.Second); d.body(); d.do("x\r\n.", "250") }, goesOn: "NOOP"},
		"half a login":    {submission: true, holds: func(d *peer) { secret(d); d.do("AUTH LOGIN", "334") }},
		"a refused login": {submission: true, holds: func(d *peer) { secret(d); d.do("AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAd3Jvbmc=", "535") }},
		"a login":         {submission: true, holds: func(d *peer) { secret(d); d.do("AUTH PLAIN AGFwcEBleGFtcGxlLnRlc3QAc2VjcmV0", "235") }, goesOn: "NOOP"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				opt := options(t)
				opt.Submission, opt.Gatekeep = c.submission, NewGatekeeper(1, 10)
				s, began := servePipe(t, opt), time.Now()
				holder := s.pipe(t)
				holder.expect("220")
				if c.holds != nil {
					c.holds(holder)
				}
				early := s.pipe(t)
				early.expect(full)
				time.Sleep(unhurried + time.Second - time.Since(began))
				late := s.pipe(t)
				if c.goesOn != "" {
					late.expect(full)
					holder.do(c.goesOn, "250")
				} else {
					if name != "STARTTLS" { // no word can be said in the middle of a handshake
						holder.expect(forOthers)
					}
					holder.closed()
					late.expect("220")
				}
				for _, d := range []*peer{holder, early, late} {
					d.c.Close()
				}
				s.Shutdown(context.Background())
			})
		})
	}
}
