package config

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "512": 512, "64KB": 65536, "64KiB": 65536, "50MB": 52428800, "50mib": 52428800, "1GB": 1 << 30, "8589934591GB": 8589934591 << 30,
	} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q: %d %v", text, s, err)
		}
	}
	for _, text := range []string{"", "MB", "1.5GB", "-1", "+1", "1TB", "1 MB", "1B", "9223372036854775808", "8589934592GB", "0x10", "1_000"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as %d", text, s)
		}
	}
}

func TestDurationString(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 25 * time.Second: "25s", 4 * time.Hour: "4h", 90 * time.Minute: "1h30m", time.Hour + time.Second: "1h0m1s", -time.Minute: "-1m", 10 * time.Minute: "10m",
	} {
		if got := Duration(d).String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestUnitsReadWhatTheyWrite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := Size(rapid.Int64Min(0).Draw(t, "size"))
		var s Size
		if err := s.UnmarshalText([]byte(size.String())); err != nil || s != size {
			t.Errorf("%d is written %v and read %d: %v", int64(size), size, int64(s), err)
		}
		duration := Duration(rapid.Int64().Draw(t, "duration"))
		var d Duration
		if err := d.UnmarshalText([]byte(duration.String())); err != nil || d != duration {
			t.Errorf("%d is written %v and read %d: %v", int64(duration), duration, int64(d), err)
		}
	})
}

func TestSmarthost(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Smarthost
		addr string
	}{
		{"submission://user@smtp.example.com:587", Smarthost{"submission", "smtp.example.com", 587, "user", ""}, "smtp.example.com:587"},
		{"submission://me%40gmail.com@smtp.gmail.com", Smarthost{"submission", "smtp.gmail.com", 587, "me@gmail.com", ""}, "smtp.gmail.com:587"},
		{"submissions://me@gmail.com@SMTP.gmail.com/", Smarthost{"submissions", "smtp.gmail.com", 465, "me@gmail.com", ""}, "smtp.gmail.com:465"},
		{"submissions://a+b%25@h:1", Smarthost{"submissions", "h", 1, "a+b%", ""}, "h:1"},
		{"SMTP://[2001:DB8::1]", Smarthost{"smtp", "2001:db8::1", 25, "", ""}, "[2001:db8::1]:25"},
		{"smtp://192.0.2.1:2525", Smarthost{"smtp", "192.0.2.1", 2525, "", ""}, "192.0.2.1:2525"},
		{"submission://relay.example.com", Smarthost{"submission", "relay.example.com", 587, "", ""}, "relay.example.com:587"},
	} {
		var s Smarthost
		if err := s.UnmarshalText([]byte(tt.text)); err != nil || s != tt.want || s.Addr() != tt.addr {
			t.Errorf("%s: %#v %v", tt.text, s, err)
		}
		var again Smarthost
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Errorf("%s is written %s and read %v: %v", tt.text, s, again, err)
		}
	}
}

func TestBadSmarthost(t *testing.T) {
	for text, want := range map[string]string{
		"smtp.example.com:587":     "must begin with submission://",
		"smtps://h":                "must begin with submission://",
		"submission://u:p@h":       "has a password in it",
		"smtp://u@h":               "does not insist on TLS",
		"submission://@h":          "no user before it",
		"submission://50%@h":       "write the % as %25",
		"submission://a%00b@h":     "control character",
		"submission://u@":          "not a domain name",
		"submission://h:0":         "number from 1 to 65535",
		"submission://h:":          "number from 1 to 65535",
		"submission://::1":         "must stand in brackets",
		"submission://[192.0.2.1]": "only an IPv6 address stands in brackets",
		"submission://[::1":        "only an IPv6 address stands in brackets",
		"submission://h/path":      "not a domain name",
	} {
		var s Smarthost
		if err := s.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v %v, want %s", text, s, err, want)
		}
	}
}

func TestPrintingDoesNotShowThePassword(t *testing.T) {
	c := Default()
	c.Outbound.Smarthost = Smarthost{"submission", "h", 587, "u", "hunter2"}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(format, c) + fmt.Sprintf(format, c.Outbound) + fmt.Sprintf(format, c.Outbound.Smarthost); strings.Contains(s, "hunter2") {
			t.Errorf("%s: %s", format, s)
		}
	}
}
