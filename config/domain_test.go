package config

import (
	"reflect"
	"strings"
	"testing"
)

func TestDomain(t *testing.T) {
	d, err := ParseDomain("f", []byte(`
		sender_policy = "own"
		suffix_separators = "+-"
		drop_characters = ""
		srs_domain = "SRS.example.org"
		mailbox = false
		dmarc = "mark"
		on_dmarc_refusal = "reject"
		own_from = "allow"
		digest = false
		messages_per_hour = { App = 5000, free = 0 }
		[send_as]
		App = ["News@x.org", "*@Example.NET"]
		"first.last" = []
	`))
	want := &Domain{
		SenderPolicy: "own",
		SendAs: map[string][]string{
			"app":        {"news@x.org", "*@example.net"},
			"first.last": {},
		},
		MessagesPerHour:  map[string]int{"app": 5000, "free": 0},
		SuffixSeparators: "+-",
		SRSDomain:        "srs.example.org",
		DMARC:            "mark",
		OnDMARCRefusal:   "reject",
		OwnFrom:          "allow",
	}
	if err != nil || !reflect.DeepEqual(d, want) {
		t.Errorf("got  %+v %v\nwant %+v", d, err, want)
	}
}

func TestEmptyDomainHasDefaults(t *testing.T) {
	if d, err := ParseDomain("f", nil); err != nil || !reflect.DeepEqual(d, DefaultDomain()) {
		t.Error(d, err)
	}
}

func TestBadDomain(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"sender_policy = \"all\"", `f:1: sender_policy: must be "same-target", "own" or "domain", not "all"`},
		{"\ndmarc = \"quarantine\"", `f:2: dmarc: must be "reject", "mark" or "off", not "quarantine"`},
		{"on_dmarc_refusal = true", "f:1: on_dmarc_refusal: must be text in double quotes, not true or false"},
		{"own_from = \"\"", `f:1: own_from: must be "refuse" or "allow", not ""`},
		{"srs_domain = \"srs\"", `f:1: srs_domain: "srs" is not a full domain name: write one like "mx.example.com"`},
		{"suffix_separators = \"+@\"", "f:1: suffix_separators: '@' cannot be used: only punctuation that an address may have without quotes, like + - _ ."},
		{"drop_characters = \"a\"", "f:1: drop_characters: 'a' cannot be used: only punctuation that an address may have without quotes, like + - _ ."},
		{"dmarck = \"off\"", "f:1: unknown key dmarck: did you mean dmarc?"},
		{"hostname = \"a.example\"", "f:1: unknown key hostname: hostname belongs in relayd.toml"},
		{"[forward]\nsrs_domain = \"a.example\"", "f:1: unknown table [forward]: forward belongs in relayd.toml"},
		{"digest = \"no\"", "f:1: digest: must be true or false, without quotes, not text"},
		{"send_as = [\"a@b.example\"]", "f:1: send_as: must be a table, not a list"},
		{"[send_as]\napp = \"a@b.example\"", `f:2: send_as.app: must be a list like ["a", "b"], not text`},
		{"[send_as]\n\nfirst.last = [\"a@b.example\"]", "f:3: send_as.first: is a table: a name with a dot in it must stand in double quotes"},
		{"[send_as]\n\"app@x.org\" = []", `f:2: send_as."app@x.org": write only what stands before the @ of the user`},
		{"[send_as]\napp = []\nAPP = []", "f:2: send_as.app: stands twice: upper and lower case are the same user"},
		{"[send_as]\napp = [\"news\", \"a@b.example\", \"*\"]", "f:2: send_as.app: \"news\" has no @: an address is name@domain; \"*@domain\" stands for all of a domain\n" +
			"f:2: send_as.app: \"*\" has no @: an address is name@domain; \"*@domain\" stands for all of a domain"},
		{"messages_per_hour = 5", "f:1: messages_per_hour: must be a table, not a number"},
		{"[messages_per_hour]\napp = \"5\"", "f:2: messages_per_hour.app: must be a whole number without quotes, not text"},
		{"[messages_per_hour]\napp = -1", "f:2: messages_per_hour.app: must be between 0 and 1000000, not -1"},
		{"[messages_per_hour]\n\"app@x.org\" = 1", `f:2: messages_per_hour."app@x.org": write only what stands before the @ of the user`},
		{"[messages_per_hour]\napp = 1\nAPP = 2", "f:2: messages_per_hour.app: stands twice: upper and lower case are the same user"},
		{"# caf\xe9", "f:1: the file is not UTF-8 from here on: save it as UTF-8"},
		{strings.Repeat(" ", MaxFile+1), "f: the file is larger than 1MB"},
	} {
		if d, err := ParseDomain("f", []byte(tt.text)); d != nil || err == nil || err.Error() != tt.want {
			t.Errorf("%.80s\ngot  %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

func FuzzParseDomain(f *testing.F) {
	for _, text := range []string{
		"", "sender_policy = \"own\"", "send_as = { app = [\"news@x.org\", \"*@x.org\"] }", "[send_as]\n\"a.b\" = []\na.b = []\n",
		"suffix_separators = \"+-\"\ndrop_characters = \"\"\n", "[[send_as]]\n", "dmarc = 1979-05-27\nown_from = 1e3\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := ParseDomain("f", data)
		checkProblems(t, data, err)
		if err != nil {
			return
		}
		again := &document{}
		for _, s := range d.settings() {
			if s.check != nil {
				s.check(complaints{again, []string{s.name}})
			}
		}
		if again.err() != nil {
			t.Errorf("%q: %v", data, again.err())
		}
	})
}
