package main

import (
	"strings"
	"testing"
	"time"

	"relayd/control"
)

func TestBans(t *testing.T) {
	s := newSite(t)
	if out, _ := s.run(0, "bans"); out != "nobody is banned\n" {
		t.Errorf("bans: %q", out)
	}
	if out, _ := s.run(0, "bans --json"); out != "[]\n" {
		t.Errorf("bans --json: %q", out)
	}
	until := time.Now().Add(90*time.Second + 500*time.Millisecond)
	s.bans = []control.Ban{{Kind: "source", Name: "192.0.2.1", Until: until, Times: 2}, {Kind: "account", Name: "a\x1b@example.org", Until: until, Times: 1}}
	if out, _ := s.run(0, "bans"); !strings.HasPrefix(out, "KIND     NAME            ENDS   TIMES\nsource   192.0.2.1       in 1m  2\naccount  a\ufffd@example.org") {
		t.Errorf("bans: %q", out)
	}
	if out, _ := s.run(0, "bans 192.0.2.1 --json"); !strings.Contains(out, `"name": "192.0.2.1"`) || strings.Contains(out, "account") {
		t.Errorf("bans 192.0.2.1: %s", out)
	}
	for _, line := range []string{"unban", "unban 192.0.2.1 --all", "unban a b", "bans a b"} {
		s.run(2, line)
	}
	if out, _ := s.run(1, "unban 192.0.2.9"); out != "there was no such ban\n" {
		t.Errorf("unban of nobody: %q", out)
	}
	if out, _ := s.run(0, "unban 192.0.2.1"); out != "source 192.0.2.1 is free again\n" || len(s.bans) != 1 {
		t.Errorf("unban: %q, left %v", out, s.bans)
	}
	if out, _ := s.run(0, "unban --all --json"); !strings.Contains(out, `"kind": "account"`) || len(s.bans) != 0 {
		t.Errorf("unban --all: %q, left %v", out, s.bans)
	}
	s.run(0, "unban --all")
}
