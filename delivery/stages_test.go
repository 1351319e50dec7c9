package delivery

import (
	"strings"
	"testing"

	"relayd/dns"
	"relayd/internal/sink"
	"relayd/internal/testnet"
)

// What a server may do at any stage. Silence is in patience_test.go.
var misdeeds = []struct{ name, script string }{
	{"4xx", "450 4.3.2 later"},
	{"5xx", "550 5.7.1 no"},
	{"421", "421 4.3.2 busy<close>"},
	{"rate", "421 4.7.28 rate<close>"},
	{"reputation", "421 4.7.0 low reputation<close>"},
	{"close", "<close>"},
	{"reset", "<reset>"},
	{"garbage", "HTTP/1.1 400 Bad Request<close>"},
	{"number only", "99"},
	{"3xx", "334 more"},
	{"half a line", "250-half<cut>"},
	{"half of more lines", "250-whole\n25<cut>"},
	{"long line", "250 " + strings.Repeat("x", 10<<20) + "<close>"},
	{"endless reply", strings.Repeat("250-x\n", 100_000) + "250 x<close>"},
}

// What becomes of the message. Rate is that of us all, whatever host is asked. Who has no answer is the next host's chance; after the final dot
// nobody else is asked.
const (
	atBad   = "delivered by the first host"
	atNext  = "delivered by the next host"
	later   = "temporary, by the first host"
	refused = "permanent, by the first host"
)

func TestEveryStageAndMisdeed(t *testing.T) {
	cert := testnet.Cert(t, "other.test")
	for stage, want := range map[string]map[string]string{
		"greeting": {"": atNext, "rate": later},
		"ehlo":     {"": atNext, "5xx": atBad, "rate": later}, // by HELO
		"helo":     {"": atNext, "rate": later},
		"in TLS":   {"": atNext, "5xx": atBad, "rate": later},                       // the EHLO after it
		"starttls": {"": atBad, "421": atNext, "rate": later, "reputation": atNext}, // in the clear
		"mail":     {"": atNext, "4xx": later, "421": later, "rate": later, "reputation": later, "5xx": refused},
		"rcpt":     {"": atNext, "4xx": later, "421": later, "rate": later, "reputation": later, "5xx": refused},
		"data":     {"": atNext, "4xx": later, "421": later, "rate": later, "reputation": later, "5xx": refused},
		"dot":      {"": later, "5xx": refused, "endless reply": later, "long line": later},
	} {
		for _, deed := range misdeeds {
			for _, way := range []string{"", "STARTTLS", "PIPELINING"} {
				if way == "STARTTLS" && (stage == "in TLS" || stage == "starttls") {
					continue
				}
				name := strings.TrimSpace(stage + " " + deed.name + " without " + way)
				t.Run(name, func(t *testing.T) {
					opt := sink.Options{Without: []string{way}, Reply: script(stage, "", deed.script), TLSConfig: serving(cert)}
					switch stage {
					case "in TLS":
						opt.Reply = func(s, _ string, nth int) string {
							if s == "ehlo" && nth == 2 {
								return deed.script
							}
							return ""
						}
					case "helo":
						opt.Reply = func(s, _ string, _ int) string {
							return map[string]string{"ehlo": "500 what", "helo": deed.script}[s]
						}
					}
					expected, ok := want[deed.name]
					if !ok {
						expected = want[""]
					}
					tryStage(t, opt, expected)
				})
			}
		}
	}
}

func tryStage(t *testing.T, opt sink.Options, want string) {
	bad, good := startSink(t, opt), startSink(t, sink.Options{})
	w := newWorld()
	w.mx["example.org"] = []dns.MX{{Host: "bad.test", Preference: 10}, {Host: "good.test", Preference: 20}}
	w.host("bad.test", "192.0.2.1", bad)
	w.host("good.test", "192.0.2.2", good)
	c := w.client(t, nil)
	var results []Result
	within(t, func() { results = c.Deliver(t.Context(), example, message(text, "a@example.org")) })
	r := results[0]
	var got string
	switch {
	case r.Host == "good.test [192.0.2.2]" && r.Reply.Code == 250 && good.Count() == 1:
		got = atNext
	case r.Host != "bad.test [192.0.2.1]" || good.Count() > 0:
		got = "from elsewhere"
	case r.Reply.Permanent():
		got = refused
	case r.Reply.Temporary():
		got = later
	case r.Reply.Code == 250 && bad.Count() > 0:
		got = atBad
	}
	if got != want {
		t.Errorf("%s: %v from %q; want it %s", got, r.Reply.Error(), r.Host, want)
	}
}

// A 5xx before MAIL is never the end of a message: it waits, and is held where the smarthost refuses
// our login. (That another host is asked first, TestEveryStageAndMisdeed has.)
func TestNoRefusalBeforeMailIsFinal(t *testing.T) {
	conf, pool := serverTLS(t, "mx.test")
	for _, stage := range []string{"greeting", "ehlo", "starttls", "auth"} {
		for _, no := range []string{"550 5.7.1 no", "554 5.1.1 no such user", "554 5.7.26 DMARC policy", "521 takes no mail", "535 5.7.8 wrong"} {
			s := startSink(t, sink.Options{TLSConfig: conf, Users: map[string]string{"me": "open sesame"}, Reply: func(at, _ string, _ int) string {
				if at == stage || stage == "ehlo" && at == "helo" {
					return no
				}
				return ""
			}})
			w := newWorld()
			w.host("mx.test", "192.0.2.1", s)
			w.host("mx.test", "192.0.2.2", s)
			c := w.client(t, func(o *Options) { o.RootCAs = pool })
			route := Route{Domain: "example.org", Hosts: []string{"mx.test"}, TLS: StartTLS, User: "me", Password: "open sesame"}
			r := c.Deliver(t.Context(), route, message(text, "a@example.org"))[0]
			fate, asked := Later, 2
			switch login := strings.HasPrefix(no, "535"); {
			case stage == "auth":
				fate, asked = Hold, 1
			case login && stage != "starttls":
				fate = Hold
			}
			if r.Reply.Permanent() || r.Fate() != fate || s.Connections() != asked {
				t.Errorf("%s at %s: %v, %v, %d connections", no, stage, r.Reply, r.Fate(), s.Connections())
			}
		}
	}
}

// The last reason is told when no host is left, and a server's own words rather than that another
// one cannot be reached.
func TestReasonWhenNobodyTakesIt(t *testing.T) {
	for _, c := range []struct{ stage, script, want string }{
		{"greeting", "554 5.7.1 you are listed", "451 4.7.1 mx.test [192.0.2.1] refuses service (greeting): 554 5.7.1 you are listed"},
		{"greeting", "554-no\n554 way", "451 4.3.0 mx.test [192.0.2.1] refuses service (greeting): 554 no way"},
		{"greeting", "421 4.7.28 rate", "421 4.7.28 mx.test [192.0.2.1] refuses service (greeting): 421 4.7.28 rate"},
		{"greeting", "250 hello", "451 4.3.0 mx.test [192.0.2.1] refuses service (greeting): 250 hello"},
		{"ehlo", "450 4.3.2 later", "450 4.3.2 mx.test [192.0.2.1] refuses service (EHLO): 450 4.3.2 later"},
		{"mail", "<close>", "451 4.4.2 The connection to mx.test [192.0.2.1] was lost"},
		{"mail", "hm", "451 4.5.0 mx.test [192.0.2.1] gives answers that are not SMTP"},
		{"mail", "421-4.7.28 rate\n421 4.7.28 limit", "421 4.7.28 rate limit"},
		{"rcpt", "550 no code", "550 no code"},
		{"rcpt", "550 5.1.1 \x1b[2Jevil\x07", "550 5.1.1 ?[2Jevil?"},
		{"rcpt", "550 4.1.1 class differs", "550 4.1.1 class differs"},
		{"dot", "250 2.0.0 Ok: queued", "250 2.0.0 Ok: queued"},
	} {
		t.Run(c.stage+" "+c.script, func(t *testing.T) {
			s := startSink(t, sink.Options{Reply: script(c.stage, "", c.script)})
			w := newWorld()
			w.mx["example.org"] = []dns.MX{{Host: "mx.test", Preference: 10}}
			w.host("mx.test", "192.0.2.1", s)
			w.host("mx.test", "2001:db8::1", nil)
			results := w.client(t, nil).Deliver(t.Context(), example, message(text, "a@example.org"))
			if got := results[0].Reply.String(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
