package message

import (
	"crypto/tls"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestReceived(t *testing.T) {
	tests := []struct {
		name  string
		trace Trace
		want  string
	}{
		{"in", Trace{Helo: "client.example", IP: "192.0.2.1", By: "mx.example.org", Protocol: "ESMTP", ID: "ID", For: "a@b.org", At: clock},
			"Received: from client.example ([192.0.2.1])\r\n\tby mx.example.org (relayd) with ESMTP id ID\r\n\tfor <a@b.org>;\r\n\tSun, 22 Nov 2026 09:30:00 +0100\r\n"},
		{"with a name", Trace{Helo: "client.example", IP: "192.0.2.1", Name: "mail.client.example", By: "mx.example.org", Protocol: "ESMTP", ID: "ID", At: clock},
			"Received: from client.example (mail.client.example [192.0.2.1])\r\n\tby mx.example.org (relayd) with ESMTP id ID;\r\n\tSun, 22 Nov 2026 09:30:00 +0100\r\n"},
		{"submitted over TLS", Trace{By: "mx.example.org", Protocol: "ESMTPSA", ID: "ID", At: clock,
			TLS: &tls.ConnectionState{Version: tls.VersionTLS13, CipherSuite: tls.TLS_AES_128_GCM_SHA256}},
			"Received: by mx.example.org (relayd) with ESMTPSA id ID\r\n\t(version=TLS1.3 cipher=TLS_AES_128_GCM_SHA256);\r\n\tSun, 22 Nov 2026 09:30:00 +0100\r\n"},
		{"IPv6 and a recipient that is not ASCII", Trace{Helo: "[IPv6:::1]", IP: "2001:db8::1", By: "mx", Protocol: "UTF8SMTP", ID: "ID", For: "ü@b.org", At: clock},
			"Received: from [IPv6:::1] ([IPv6:2001:db8::1])\r\n\tby mx (relayd) with UTF8SMTP id ID;\r\n\tSun, 22 Nov 2026 09:30:00 +0100\r\n"},
		{"long names", Trace{Helo: strings.Repeat("h", 80), IP: "192.0.2.1", By: strings.Repeat("b", 70), Protocol: "ESMTP", ID: "ID", At: clock},
			"Received: from\r\n\t" + strings.Repeat("h", 80) + "\r\n\t([192.0.2.1])\r\n\tby " + strings.Repeat("b", 70) + "\r\n\t(relayd) with ESMTP id ID;\r\n\tSun, 22 Nov 2026 09:30:00 +0100\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.trace.Field(); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestPasses(t *testing.T) {
	for value, want := range map[string]int{
		"from a by mx.test (relayd) with ESMTP id X; date": 1,
		"by MX.Test; date":                      1,
		"from a\r\n\tby\r\n\tmx.test. (x)":      1,
		"by mx.test by mx.test":                 1,
		"from mx.test by other.test":            0,
		"from a by mx.test.evil.test; date":     0,
		"from a by xmx.test for <by@mx.test>":   0,
		"by":                                    0,
		"":                                      0,
		"by other.test (mx.test) with ESMTP; x": 0,
	} {
		h, err := ParseHeader([]byte("Received: " + value + "\r\nSubject: by mx.test\r\n"))
		if err != nil || h.Passes("mx.test") != want {
			t.Errorf("%q: %d, %v, want %d", value, h.Passes("mx.test"), err, want)
		}
	}
	own := Trace{Helo: "h", IP: "192.0.2.1", By: "mx.test", Protocol: "ESMTP", ID: "ID", At: clock}.Field()
	if h, _ := ParseHeader([]byte(own + own + "Received: by x\r\n" + own)); h.Passes("mx.test") != 3 {
		t.Errorf("our own field is not known: %d", h.Passes("mx.test"))
	}
}

var receivedShape = regexp.MustCompile(`^Received: from\s+[^\s()<>;]+\s+\(\[192\.0\.2\.1\]\)\r\n\tby\s`)

// Whatever a client says after EHLO, the field says the same and ends where it ends.
func TestNothingIsInjectedIntoReceived(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		helo := rapid.OneOf(rapid.String(), rapid.StringMatching(`[a-z.\r\n ;()<>]{0,300}`)).Draw(t, "helo")
		field := Trace{Helo: helo, IP: "192.0.2.1", By: "mx.example.org", Protocol: "ESMTP", ID: "ID", At: clock}.Field()
		if !receivedShape.MatchString(field) || strings.Count(field, ";") != 1 || !isASCII([]byte(field)) {
			t.Fatalf("%q", field)
		}
		h, err := ParseHeader([]byte(field))
		if err != nil || len(h.fields) != 1 || string(h.Raw()[h.fields[0].start:h.fields[0].end]) != field {
			t.Fatalf("%q is not one field", field)
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(field, "\r\n"), "\r\n") {
			if len(line) > maxLine && strings.ContainsRune(strings.TrimSpace(line), ' ') {
				t.Fatalf("%q has %d octets and could be folded", line, len(line))
			}
			if strings.TrimSpace(line) == "" {
				t.Fatalf("%q has a blank line", field)
			}
		}
	})
}

func TestToken(t *testing.T) {
	for in, want := range map[string]string{
		"": "?", "mx-1.example.org": "mx-1.example.org", "[IPv6:::1]": "[IPv6:::1]", "a b\r\nc;(d)<e>": "a?b??c??d??e?",
		"ü\xff": "??", strings.Repeat("a", 300): strings.Repeat("a", 255),
	} {
		if got := Token(in); got != want {
			t.Errorf("Token(%q) = %q, want %q", in, got, want)
		}
	}
}
