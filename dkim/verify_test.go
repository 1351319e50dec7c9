package dkim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"go.uber.org/goleak"

	"relayd/tasks"
)

func readFile(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// rfc8463 answers with the records of RFC 8463 appendix A.2.
func rfc8463(_ context.Context, name string) ([]string, error) {
	switch name {
	case "brisbane._domainkey.football.example.com":
		return []string{"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="}, nil
	case "test._domainkey.football.example.com":
		return []string{"v=DKIM1; k=rsa; p=MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDkHlOQoBTzWR" +
			"iGs5V6NpP3idY6Wk08a5qhdR6wy5bdOKb2jLQiY/J16JYi0Qvx/b" +
			"yYzCNb3W91y3FutACDfzwQ/BC/e/8uBsCR+yz1Lxj+PL6lHvqMKr" +
			"M3rG4hstT5QjvHO9PzoxZyVYLzBfO2EeC3Ip3G+2kryOTIKT+l/K" +
			"4w3QIDAQAB"}, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func TestMessageOfRFC8463(t *testing.T) {
	msg := readFile(t, "testdata/rfc8463.eml")
	for name, msg := range map[string]string{
		"as stored":  msg,
		"as sent":    strings.ReplaceAll(msg, "\n", "\r\n"),
		"other case": strings.ReplaceAll(msg, "s=brisbane", "s=BRISBANE"),
	} {
		results, err := Verify(t.Context(), strings.NewReader(msg), rfc8463)
		if err != nil || len(results) != 2 {
			t.Fatalf("%s: %v, %v", name, results, err)
		}
		ed, rsa := results[0], results[1]
		if name == "other case" { // the selector is signed, but looked up all the same
			if ed.Kind != Fail || ed.Selector != "brisbane" {
				t.Errorf("%s: %+v", name, ed)
			}
			continue
		}
		if ed.Kind != Pass || ed.Selector != "brisbane" || ed.Algorithm != "ed25519-sha256" {
			t.Errorf("%s: %+v", name, ed)
		}
		if rsa.Kind != Pass || rsa.Selector != "test" || rsa.Domain != "football.example.com" || len(rsa.Fields) != 8 {
			t.Errorf("%s: %+v", name, rsa)
		}
	}
}

func TestErrorsOfDNS(t *testing.T) {
	msg := head + "\r\nHello\r\n"
	signed := mustSign(t, msg) + msg
	tests := []struct {
		name string
		txt  []string
		err  error
		want Kind
	}{
		{"no record", nil, nil, PermError},
		{"no such name", nil, &net.DNSError{IsNotFound: true}, PermError},
		{"not found for now", nil, &net.DNSError{IsNotFound: true, IsTemporary: true}, PermError},
		{"server failure", nil, &net.DNSError{IsTemporary: true}, TempError},
		{"timeout", nil, &net.DNSError{IsTimeout: true}, TempError},
		{"wrapped", nil, fmt.Errorf("asking: %w", &net.DNSError{IsTemporary: true}), TempError},
		{"deadline", nil, fmt.Errorf("asking: %w", context.DeadlineExceeded), TempError},
		{"canceled", nil, context.Canceled, TempError},
		{"anything else", nil, errors.New("bad name"), PermError},
		{"two records", []string{"p=x", "p=x"}, nil, PermError},
		{"rubbish", []string{"v=spf1 -all"}, nil, PermError},
		{"revoked", []string{"v=DKIM1; p="}, nil, PermError},
		{"a huge record", []string{"p=" + strings.Repeat("A", maxKeyRecord)}, nil, PermError},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			lookup := func(context.Context, string) ([]string, error) { return tt.txt, tt.err }
			results, err := Verify(t.Context(), strings.NewReader(signed), lookup)
			if err != nil || len(results) != 2 {
				t.Fatalf("%v, %v", results, err)
			}
			for _, r := range results {
				if r.Kind != tt.want || r.Err == nil {
					t.Errorf("%s (%v), want %s", r.Kind, r.Err, tt.want)
				}
			}
		})
	}
}

func TestMessageWithoutSignature(t *testing.T) {
	body := iotest.ErrReader(errors.New("the body was read"))
	results, err := Verify(t.Context(), io.MultiReader(strings.NewReader(head+"\r\n"), body), nil)
	if len(results) != 0 || err != nil {
		t.Errorf("Verify = %v, %v", results, err)
	}
}

func TestOnlyTheFirstTenSignaturesCount(t *testing.T) {
	msg := head + "\r\nHello\r\n"
	var lookups atomic.Int64
	lookup := func(ctx context.Context, name string) ([]string, error) {
		lookups.Add(1)
		return published(testKeys()...)(ctx, name)
	}
	many := strings.Repeat("DKIM-Signature: v=1; d=evil.example; s=x; h=from; a=rsa-sha256; b=; bh=\r\n", MaxSignatures-2)
	bad := strings.Repeat("DKIM-Signature: h=\u017fubject\r\n", 2)
	signature := mustSign(t, msg)
	for name, tt := range map[string]struct {
		msg  string
		last Kind
	}{
		"ours are the last that count":   {many + signature + many + msg, Pass},
		"ours come too late":             {many + many + signature + msg, PermError},
		"unusable ones count":            {many + bad + signature + msg, PermError},
		"unusable ones push none aside":  {many + bad[:len(bad)/2] + signature + msg, Pass},
		"unusable ones behind ours":      {many + signature + bad + msg, Pass},
		"all of those before unusable":   {strings.Repeat(bad, 5) + signature + msg, PermError},
		"a name that is nearly the name": {strings.Repeat("DKIM-\u017fignature: x\r\n", 20) + many + signature + msg, Pass},
	} {
		lookups.Store(0)
		results, err := Verify(t.Context(), strings.NewReader(tt.msg), lookup)
		if err != nil || len(results) != MaxSignatures || lookups.Load() > MaxSignatures {
			t.Fatalf("%s: %d results, %d lookups, %v", name, len(results), lookups.Load(), err)
		}
		if last := results[MaxSignatures-1]; last.Kind != tt.last {
			t.Errorf("%s: the last is %+v", name, last)
		}
	}
}

func TestHeaderOverItsLimitsIsNotVerified(t *testing.T) {
	msg := head + "\r\nHello\r\n"
	signature := mustSign(t, msg)
	for name, extra := range map[string]string{
		"fields": strings.Repeat("X: y\r\n", MaxFields),
		"octets": "X: " + strings.Repeat("y", MaxHeader) + "\r\n",
	} {
		results, err := Verify(t.Context(), strings.NewReader(signature+extra+msg), nil)
		if err != nil || len(results) != 2 {
			t.Fatalf("%s: %v, %v", name, results, err)
		}
		for _, r := range results {
			if r.Kind != PermError || !errors.Is(r.Err, ErrHeader) || r.Domain != "example.org" {
				t.Errorf("%s: %+v", name, r)
			}
		}
	}
}

func TestSignaturesThatWouldCostTooMuch(t *testing.T) {
	const rest = "v=1; a=rsa-sha256; d=example.org; s=rsa2048; bh=AAAA; b=AAAA\r\n"
	for name, h := range map[string]string{
		"many names":      strings.Repeat("x:", maxWork) + "from",
		"not ASCII":       "from:\u017fubject",
		"the Kelvin sign": "from:\u212aeywords",
	} {
		msg := "DKIM-Signature: h=" + h + "; " + rest + head + "\r\n"
		lookup := func(context.Context, string) ([]string, error) {
			t.Errorf("%s: the key was asked for", name)
			return nil, nil
		}
		results, err := Verify(t.Context(), strings.NewReader(msg), lookup)
		if err != nil || len(results) != 1 || results[0].Kind != PermError {
			t.Errorf("%s: %.200v, %v", name, results, err)
		}
	}
}

func TestNamesAreCheckedBeforeDNSSeesThem(t *testing.T) {
	for name, tt := range map[string]struct{ tags, asked, domain string }{
		"upper case":       {"d=EXAMPLE.org; s=Sel", "sel._domainkey.example.org", "example.org"},
		"Unicode":          {"d=bücher.example; s=s", "s._domainkey.xn--bcher-kva.example", "xn--bcher-kva.example"},
		"folded":           {"d=exam\r\n ple.org; s=\r\n\ts", "s._domainkey.example.org", "example.org"},
		"slash":            {"d=../x.org; s=s", "", ""},
		"an address":       {"d=[192.0.2.1]; s=s", "", ""},
		"no domain":        {"d=; s=s", "", ""},
		"slash in s":       {"d=example.org; s=a/b", "", "example.org"},
		"no selector":      {"d=example.org; s=", "", "example.org"},
		"too long":         {"d=" + strings.Repeat("abcdefg.", 31) + "org; s=s", "", strings.Repeat("abcdefg.", 31) + "org"},
		"header injection": {"d=a\rb.org; s=s\x00", "", "ab.org"},
	} {
		asked := ""
		lookup := func(_ context.Context, name string) ([]string, error) { asked = name; return nil, nil }
		msg := "DKIM-Signature: v=1; a=rsa-sha256; h=from; bh=AAAA; b=AAAA; " + tt.tags + "\r\n" + head + "\r\n"
		results, err := Verify(t.Context(), strings.NewReader(msg), lookup)
		if err != nil || len(results) != 1 || results[0].Kind != PermError {
			t.Fatalf("%s: %v, %v", name, results, err)
		}
		if asked != tt.asked || results[0].Domain != tt.domain {
			t.Errorf("%s: asked for %q of domain %q", name, asked, results[0].Domain)
		}
	}
}

func TestAReaderThatFailsLeavesNoGoroutine(t *testing.T) {
	defer goleak.VerifyNone(t)
	broken := errors.New("broken")
	msg := head + "\r\n" + strings.Repeat("Hello\r\n", 20_000)
	signed := mustSign(t, msg) + msg
	for _, n := range []int{0, 100, len(signed) / 2, len(signed)} {
		r := io.MultiReader(strings.NewReader(signed[:n]), iotest.ErrReader(broken))
		if results, err := Verify(t.Context(), r, published(testKeys()...)); !errors.Is(err, broken) || results != nil {
			t.Errorf("after %d octets: %v, %v", n, results, err)
		}
	}
}

func TestAContextThatEndsLeavesNoGoroutine(t *testing.T) {
	defer goleak.VerifyNone(t)
	msg := head + "\r\n" + strings.Repeat("Hello\r\n", 20_000)
	signed := mustSign(t, msg) + msg
	ctx, cancel := context.WithCancel(t.Context())
	lookup := func(ctx context.Context, _ string) ([]string, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if results, err := Verify(ctx, strings.NewReader(signed), lookup); !errors.Is(err, context.Canceled) || results != nil {
		t.Errorf("Verify = %v, %v", results, err)
	}
}

// A goroutine that panics where nobody recovers ends the process: what goes wrong for one of several signatures
// comes out where the session or the attempt is that can be given up.
func TestAPanicComesOutOfVerify(t *testing.T) {
	defer goleak.VerifyNone(t)
	msg := head + "\r\n" + strings.Repeat("Hello\r\n", 20_000)
	signed := mustSign(t, msg) + msg
	lookup := func(ctx context.Context, name string) ([]string, error) {
		if strings.HasPrefix(name, "rsa2048.") {
			panic("a strange key")
		}
		return published(testKeys()...)(ctx, name)
	}
	defer func() {
		if p, ok := recover().(*tasks.Panic); !ok || p.Value != "a strange key" {
			t.Errorf("the panic is %v", p)
		}
	}()
	results, err := Verify(t.Context(), strings.NewReader(signed), lookup)
	t.Errorf("Verify = %v, %v", results, err)
}

// A field of many lines costs the verifier the square of their number. With relaxed canonicalization, in
// which nothing is lost by that, it is shown one line.
func TestAHeaderOfOneFieldInManyLines(t *testing.T) {
	folds := strings.Repeat(" \r\n", 80_000) + " end\r\n"
	for c, want := range map[string]string{
		"relaxed/simple": "body hash did not verify",
		"simple/relaxed": "the signed fields are folded into too many lines to check",
		"relaxed ":       "body hash did not verify",
		"RELAXED":        "the signed fields are folded into too many lines to check",
	} {
		msg := "DKIM-Signature: v=1; a=ed25519-sha256; c=" + c + "; d=example.org; s=ed25519; h=from:subject; bh=AAAA; b=AAAA\r\n" +
			"Subject: x\r\n" + folds + "From: a@example.org\r\n\r\n"
		results, err := Verify(t.Context(), strings.NewReader(msg), published(testKeys()...))
		if err != nil || len(results) != 1 || results[0].Err == nil || !strings.Contains(results[0].Err.Error(), want) {
			t.Errorf("%s: %.200v, %v", c, results, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(readFile(f, "testdata/rfc8463.eml"), "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")
	for name, msg := range nasty {
		if len(msg) < 1000 {
			f.Add(mustSign(f, msg)+msg, testKeys()[len(name)%2].Record().Value)
		}
	}
	f.Add("DKIM-Signature: l=99999999999999999999; h=:; b=;;\n\n", "p=")
	f.Fuzz(func(t *testing.T, msg, record string) {
		lookup := func(_ context.Context, name string) ([]string, error) {
			if len(name) > maxName || strings.ContainsAny(name, "/ \r\n\x00[") {
				t.Errorf("DNS was asked for %q", name)
			}
			return []string{record}, nil
		}
		results, err := Verify(t.Context(), strings.NewReader(msg), lookup)
		if err != nil || len(results) > MaxSignatures {
			t.Fatalf("%d results, %v", len(results), err)
		}
		for _, r := range results {
			if r.Kind == "" || (r.Err == nil) != (r.Kind == Pass) {
				t.Fatalf("%+v", r)
			}
		}
	})
}

// TestSignaturesThatWouldCostTooMuchTogether: those that fit from the top are looked at, and a small
// one behind them still is.
func TestSignaturesThatWouldCostTooMuchTogether(t *testing.T) {
	const rest = "v=1; a=rsa-sha256; d=example.org; s=rsa2048; bh=AAAA; b=AAAA\r\n"
	large := "DKIM-Signature: h=from" + strings.Repeat(":x", maxWork/200/3) + "; " + rest
	msg := strings.Repeat(large, 5) + "DKIM-Signature: h=from; " + rest + strings.Repeat("y: z\r\n", 200) + head + "\r\n"
	results, err := Verify(t.Context(), strings.NewReader(msg), published(testKeys()...))
	if err != nil {
		t.Fatal(err)
	}
	var tried []bool
	for _, r := range results {
		tried = append(tried, r.Err == nil || !strings.Contains(r.Err.Error(), "too many to check"))
	}
	if want := []bool{true, true, false, false, false, true}; !slices.Equal(tried, want) {
		t.Errorf("tried are %v, want %v", tried, want)
	}
}

// TestManySignaturesOfALargeHeader: what each signs is held while its key is waited for, so it is held for
// two of them and for those that sign little.
func TestManySignaturesOfALargeHeader(t *testing.T) {
	const rest = "v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=rsa2048; bh=AAAA; b=AAAA\r\n"
	msg := strings.Repeat("DKIM-Signature: h=from:x; "+rest, 4) + "DKIM-Signature: h=from; " + rest + "X: " + strings.Repeat("x", 250<<10) + "\r\n" + head + "\r\n"
	results, err := Verify(t.Context(), strings.NewReader(msg), published(testKeys()...))
	if err != nil {
		t.Fatal(err)
	}
	var tried []bool
	for _, r := range results {
		tried = append(tried, !strings.Contains(fmt.Sprint(r.Err), "too many octets to check"))
	}
	if want := []bool{true, true, false, false, true}; !slices.Equal(tried, want) {
		t.Errorf("tried are %v, want %v", tried, want)
	}
}

// BenchmarkVerifyDearest is a message made to cost as much as it can.
func BenchmarkVerifyDearest(b *testing.B) {
	sig := "DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed; d=example.org; s=ed25519; h=from" +
		strings.Repeat(":x", maxWork/900/MaxSignatures-1) + "; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=; b=AAAA\r\n"
	msg := strings.Repeat(sig, MaxSignatures) + strings.Repeat("y: z\r\n", 900-MaxSignatures) + "\r\n"
	for b.Loop() {
		if _, err := Verify(b.Context(), strings.NewReader(msg), published(testKeys()...)); err != nil {
			b.Fatal(err)
		}
	}
}
