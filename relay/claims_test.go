package relay

import (
	"strings"
	"testing"
)

// TestFromThatOnlyOthersCanRead: a From that is not one plain address passes for a hosted one with
// readers that are more lenient than we are, so it needs the same proof.
func TestFromThatOnlyOthersCanRead(t *testing.T) {
	h := build(t, "", map[string]string{
		"domains/example.test/aliases":    exampleTest["domains/example.test/aliases"],
		"domains/allows.test/aliases":     "*: you@mailbox.test\n",
		"domains/allows.test/domain.toml": "own_from = \"allow\"\n",
	})
	for from, refused := range map[string]bool{
		"From: boss @ example.test":                            true,
		"From: boss(c)@example.test":                           true,
		"From: boss@(c)example.test":                           true,
		"From: \"(\" boss@example.test":                        true,
		"From: g: boss@example.test;":                          true,
		"From: boss@example.test, x@elsewhere.test":            true,
		"From: x@elsewhere.test\r\nFrom: boss@example.test":    true,
		"From: <boss@example.test":                             true,
		"From: \"Boss\" boss@example.test":                     true,
		"From: boss@EXAMPLE.TEST.":                             true,
		"From: boss@example\r\n .test":                         true,
		"From: boss @ allows.test":                             false,
		"From: boss @ allows.test, other @ example.test":       true,
		"From: boss @ elsewhere.test":                          false,
		"From: example.test":                                   false,
		"From: \"boss at example.test\" <x @ elsewhere.test>":  false,
		"From: boss @ notexample.test, x @ example.test.other": false,
	} {
		text := from + "\r\nSubject: hi\r\n\r\nHello\r\n"
		e, body, err := h.deliver(stranger, "x@elsewhere.test", []string{"shop@example.test"}, text)
		if got := err != nil && strings.HasPrefix(err.Error(), "550 5.7.1 The message claims to be from <…@"); got != refused {
			t.Errorf("%q: %v", from, err)
		}
		if err == nil && strings.Contains(e.Recipients[0].Fields+body, "DKIM-Signature") {
			t.Errorf("%q is signed", from)
		}
	}
}

// TestUsersMayNotSendAsSRSAddresses: a bounce to one goes to a stranger who has sent nothing.
func TestUsersMayNotSendAsSRSAddresses(t *testing.T) {
	h := build(t, "", exampleTest)
	user := h.user("app@example.test")
	e, _, err := h.deliver(stranger, "s@elsewhere.test", []string{"shop@example.test"}, hello)
	if err != nil {
		t.Fatal(err)
	}
	sender := e.Recipients[0].ReturnPath.String()
	if _, _, err := h.deliver(user, sender, []string{"a@elsewhere.test"}, "From: app@example.test\r\n\r\nx\r\n"); err == nil || !strings.HasPrefix(err.Error(), "550 5.7.1") {
		t.Errorf("%s: %v", sender, err)
	}
}

// TestSubmittedMailBearsNoJudgementOfOurs: a field in our name that a user has written is forged, and
// nothing else of the message changes.
func TestSubmittedMailBearsNoJudgementOfOurs(t *testing.T) {
	h := build(t, "", exampleTest)
	text := "From: app@example.test\r\nAuthentication-Results: mx.example.test; spf=pass\r\nAuthentication-Results: other.test; spf=pass\r\nSubject: x\r\n\r\nHello\r\n"
	_, body, err := h.deliver(h.user("app@example.test"), "app@example.test", []string{"a@elsewhere.test"}, text)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(body, "From: app@example.test\r\nAuthentication-Results: other.test; spf=pass\r\nSubject: x\r\n\r\nHello\r\n") || strings.Contains(body, "mx.example.test; spf") {
		t.Errorf("%q", body)
	}
	if got := h.verified(body); len(got) == 0 {
		t.Error("our signature does not verify")
	}
}
