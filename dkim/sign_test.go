package dkim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"
)

var signTime = time.Unix(1_700_000_000, 0)

// published answers like a DNS in which the records of the keys stand.
func published(keys ...*Key) TXTLookup {
	records := make(map[string][]string)
	for _, k := range keys {
		r := k.Record()
		records[r.Name] = append(records[r.Name], r.Value)
	}
	return func(_ context.Context, name string) ([]string, error) { return records[name], nil }
}

func mustSign(t testing.TB, msg string) string {
	t.Helper()
	fields, err := Sign(strings.NewReader(msg), testKeys(), signTime)
	if err != nil {
		t.Fatalf("Sign: %v", err)
	}
	return fields
}

// checkSigned verifies that every test key's signature of msg passes, and is well formed.
func checkSigned(t testing.TB, msg string) {
	t.Helper()
	fields := mustSign(t, msg)
	results, err := Verify(t.Context(), strings.NewReader(fields+msg), published(testKeys()...))
	if err != nil || len(results) < 2 {
		t.Fatalf("Verify: %v, %v", results, err)
	}
	for i, k := range testKeys() {
		if r := results[i]; r.Kind != Pass || r.Domain != k.Domain || r.Selector != k.Selector || r.Algorithm != k.Algorithm() {
			t.Fatalf("signature %d of %.2000q: %+v\n%s", i, msg, r, fields)
		}
	}
	for l := range strings.SplitAfterSeq(fields, "\r\n") {
		if len(strings.TrimSuffix(l, "\r\n")) > maxLine {
			t.Fatalf("line of %d octets: %q", len(l), l)
		}
	}
	if strings.Count(fields, "\n") != strings.Count(fields, "\r\n") || !strings.HasSuffix(fields, "\r\n") {
		t.Fatalf("line ends in %q", fields)
	}
}

const head = "From: Ann <ann@example.org>\r\nTo: bob@example.net\r\nSubject: hi\r\n" +
	"Date: Tue, 14 Nov 2023 22:13:20 +0000\r\nMessage-ID: <1@example.org>\r\n"

// nasty are messages that signers are known to get wrong.
var nasty = map[string]string{
	"empty":                   "",
	"nothing but a blank":     "\r\n",
	"header only":             head,
	"header without line end": strings.TrimSuffix(head, "\r\n"),
	"empty body":              head + "\r\n",
	"one empty line":          head + "\r\n\r\n",
	"only empty lines":        head + strings.Repeat("\r\n", 20_000),
	"only white space":        head + "\r\n \t \r\n\t\r\n  ",
	"plain":                   head + "\r\nHello\r\n",
	"no CRLF at the end":      head + "\r\nHello",
	"white space at the end":  head + "\r\nHello \t ",
	"empty lines at the end":  head + "\r\nHello\r\n\r\n \r\n\r\n",
	"empty lines within":      head + "\r\na\r\n\r\n\r\n" + strings.Repeat("\r\n", 300) + "b\r\n",
	"white space everywhere":  head + "\r\n \ta \t b\tc  \r\n\t\r\n  d\r\n",
	"white space across buffers": head + "\r\n" + strings.Repeat("x", bufferSize-len(head)-5) +
		strings.Repeat(" ", 10) + "y" + strings.Repeat("\t ", bufferSize) + "z" + strings.Repeat(" ", bufferSize) + "\r\n",
	"line end across buffers": head + "\r\n" + strings.Repeat("x", bufferSize-len(head)-3) + "\r\ny\r\n",
	"long lines":              head + "\r\n" + strings.Repeat("very long ", 50_000) + "\r\nend",
	"8-bit":                   "Subject: schön \xff\xfe\r\n" + head + "\r\nGrüße \xa0\xff\x00\r\n",
	"repeated To":             "To: a@x\r\n" + head + "To: c@x\r\nTO: d@x\r\n\r\nHello\r\n",
	"repeated From":           head + "From: e@x\r\n\r\nHello\r\n",
	"a hundred To":            head + strings.Repeat("To: c@x\r\n", 100) + "\r\nHello\r\n",
	"folded": "Subject:\r\n \t a\r\n\tb   c \t\r\n" + head +
		"References: <1@x>\r\n <2@x>\r\n \r\n <3@x>  \r\nX: \r\n\r\nHello\r\n",
	"space before the colon": "Subject \t: a\r\nMIME-VERSION: 1.0\r\n" + head + "\r\nHello\r\n",
	"no white space":         "From:a@x\r\nto:b@x\r\n\r\nHello\r\n",
	"empty fields":           "From:\r\nTo: \r\nCc: \t\r\n \r\n\r\nHello\r\n",
	"no From":                "To: b@x\r\n\r\nHello\r\n",
	"lines that are none":    "rubbish\r\n more: rubbish\r\n" + head + "From\x00 b\r\n: x\r\n\r\nHello\r\n",
	"begins with a fold":     " From: x@x\r\n" + head + "\r\nHello\r\n",
	"list": head + "Sender: s@x\r\nList-Id: <l>\r\nList-Unsubscribe: <https://x>\r\n" +
		"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nList-Post: <mailto:l@x>\r\n\r\nHello\r\n",
	"signed before": "DKIM-Signature: v=1; d=x\r\n" + head + "\r\nHello\r\n",
	"bare LF":       strings.ReplaceAll(head, "\r\n", "\n") + "\na \n\nb\n",
	"long name": "From: " + strings.Repeat("a very long name ", 600) + "<a@x>\r\n" +
		"Subject: " + strings.Repeat("x", 9000) + "\r\n\r\nHello\r\n",
}

func TestSignaturesOfNastyMessagesVerify(t *testing.T) {
	for name, msg := range nasty {
		t.Run(name, func(t *testing.T) { checkSigned(t, msg) })
	}
}

func TestSignatureIsTheSameHoweverItIsRead(t *testing.T) {
	for name, msg := range nasty {
		t.Run(name, func(t *testing.T) {
			want := mustSign(t, msg)
			for i, r := range []io.Reader{
				iotest.OneByteReader(strings.NewReader(msg)),
				iotest.HalfReader(strings.NewReader(msg)),
				iotest.DataErrReader(strings.NewReader(msg)),
			} {
				got, err := Sign(r, testKeys(), signTime)
				if err != nil || got != want {
					t.Errorf("reader %d: %v\n%s\n%s", i, err, got, want)
				}
			}
		})
	}
}

func TestSignedFields(t *testing.T) {
	msg := "Received: x\r\nTo: 1\r\nList-Id: l\r\n" + head + "to: 2\r\nSENDER: s\r\nAuto-Submitted: no\r\n\r\n"
	results, err := Verify(t.Context(), strings.NewReader(mustSign(t, msg)+msg), published(testKeys()...))
	if err != nil {
		t.Fatal(err)
	}
	want := "from:from:to:to:to:to:cc:subject:subject:date:date:message-id:message-id:reply-to:" +
		"in-reply-to:references:mime-version:content-type:content-transfer-encoding:sender:list-id"
	if got := strings.Join(results[0].Fields, ":"); got != want {
		t.Errorf("h=%s, want %s", got, want)
	}
}

func TestAChangeBreaksTheSignature(t *testing.T) {
	msg := head + "List-Id: l\r\nX-Other: x\r\n\r\nHello world\r\n"
	signed := mustSign(t, msg) + msg
	tests := []struct {
		name, from, to string
		want           Kind
	}{
		{"nothing", "Hello", "Hello", Pass},
		{"body", "Hello", "hello", Fail},
		{"more body", "world\r\n", "world\r\nx", Fail},
		{"white space in the body", "Hello world", "Hello \t world  ", Pass},
		{"empty lines behind", "world\r\n", "world\r\n\r\n\r\n", Pass},
		{"subject", "Subject: hi", "Subject: ho", Fail},
		{"folding", "Subject: hi", "SUBJECT:\r\n  hi ", Pass},
		{"a second From above", "From: Ann", "From: eve@x\r\nFrom: Ann", Fail},
		{"a second From below", "X-Other", "From: eve@x\r\nX-Other", Fail},
		{"a field that was not there", "X-Other", "Reply-To: eve@x\r\nX-Other", Fail},
		{"a type that was not there", "X-Other", "Content-Type: text/html\r\nX-Other", Fail},
		{"a list above", "From: Ann", "List-Id: other\r\nList-Post: p\r\nFrom: Ann", Pass},
		{"another list", "List-Id: l", "List-Id: m", Fail},
		{"what is not signed", "X-Other: x", "X-Another: y", Pass},
		{"the signature", "t=1700000000", "t=1700000001", Fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changed := strings.ReplaceAll(signed, tt.from, tt.to)
			results, err := Verify(t.Context(), strings.NewReader(changed), published(testKeys()...))
			if err != nil || len(results) != 2 {
				t.Fatalf("Verify: %v, %v", results, err)
			}
			for _, r := range results {
				if r.Kind != tt.want || (r.Err == nil) != (r.Kind == Pass) {
					t.Errorf("%s: %s (%v), want %s", r.Algorithm, r.Kind, r.Err, tt.want)
				}
			}
		})
	}
}

func TestSignRefusesHugeHeaders(t *testing.T) {
	for name, tt := range map[string]struct {
		header string
		ok     bool
	}{
		"fields at the limit":   {strings.Repeat("X: y\r\n", MaxFields), true},
		"fields over the limit": {strings.Repeat("X: y\r\n", MaxFields+1), false},
		"octets at the limit":   {"X: " + strings.Repeat("y", MaxHeader-7) + "\r\n", true},
		"octets over the limit": {"X: " + strings.Repeat("y", MaxHeader-4) + "\r\n", false},
		"a line without end":    {strings.Repeat("y", 2*MaxHeader), false},
		"folds without end":     {"X: " + strings.Repeat("\r\n y", MaxHeader/3), false},
	} {
		_, err := Sign(strings.NewReader(tt.header+"\r\nbody"), testKeys()[1:], signTime)
		if tt.ok != (err == nil) || err != nil && !errors.Is(err, ErrHeader) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSignReportsAReaderThatFails(t *testing.T) {
	broken := errors.New("broken")
	for _, n := range []int{0, 10, len(head), len(head) + 2, len(head) + 7} {
		r := io.MultiReader(strings.NewReader((head + "\r\nHello")[:n]), iotest.ErrReader(broken))
		if got, err := Sign(r, testKeys(), signTime); !errors.Is(err, broken) || got != "" {
			t.Errorf("after %d octets: %q, %v", n, got, err)
		}
	}
}

func TestSignWithoutKeysReadsNothing(t *testing.T) {
	if got, err := Sign(iotest.ErrReader(io.ErrUnexpectedEOF), nil, signTime); got != "" || err != nil {
		t.Errorf("Sign = %q, %v", got, err)
	}
}

// plainRelaxed is RFC 6376 section 3.4.4 in the order of its words, for a body without bare CR.
func plainRelaxed(body string) string {
	var lines []string
	for l := range strings.SplitSeq(strings.ReplaceAll(body, "\r\n", "\n"), "\n") {
		l = strings.ReplaceAll(l, "\t", " ")
		for strings.Contains(l, "  ") {
			l = strings.ReplaceAll(l, "  ", " ")
		}
		lines = append(lines, strings.TrimSuffix(l, " "))
	}
	text := strings.TrimRight(strings.Join(lines, "\r\n"), "\r\n")
	if text == "" {
		return ""
	}
	return text + "\r\n"
}

func TestBodyIsCanonicalHoweverItIsCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{
			" ", "\t", "  ", "\r\n", "\r\n\r\n", "a", "word", "two words", strings.Repeat("long", 20), "\xff\x00",
		})).Draw(t, "parts")
		body := strings.Join(parts, "")
		var out sink
		c := relaxedBody{hash: &out, out: make([]byte, 0, rapid.IntRange(2, 100).Draw(t, "buffer"))}
		for rest := body; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "cut")
			c.Write([]byte(rest[:n]))
			rest = rest[n:]
		}
		c.close()
		if want := plainRelaxed(body); out.String() != want {
			t.Fatalf("%q became %q, want %q", body, out.String(), want)
		}
	})
}

// sink is a hash that shows what it was given.
type sink struct {
	bytes.Buffer
	hash.Hash
}

func (s *sink) Write(p []byte) (int, error) { return s.Buffer.Write(p) }
func (s *sink) Reset()                      { s.Buffer.Reset() }

func TestABareCRIsHashedAsItStands(t *testing.T) {
	for body, want := range map[string]string{
		"a\rb":      "a\rb\r\n",
		"a \r b\r":  "a \r b\r\r\n",
		"\r":        "\r\r\n",
		"a\r\r\nb":  "a\r\r\nb\r\n",
		"\r\n\r\rx": "\r\n\r\rx\r\n",
	} {
		for cut := range len(body) {
			var out sink
			c := relaxedBody{hash: &out, out: make([]byte, 0, 8)}
			c.Write([]byte(body[:cut]))
			c.Write([]byte(body[cut:]))
			c.close()
			if out.String() != want {
				t.Errorf("%q cut at %d became %q, want %q", body, cut, out.String(), want)
			}
		}
	}
}

func FuzzSign(f *testing.F) {
	for _, msg := range nasty {
		if len(msg) < 1000 {
			f.Add(msg, uint64(1))
		}
	}
	f.Fuzz(func(t *testing.T, msg string, seed uint64) {
		keys := testKeys()[1:]
		fields, err := Sign(strings.NewReader(msg), keys, signTime)
		if err != nil {
			if !errors.Is(err, ErrHeader) {
				t.Fatal(err)
			}
			return
		}
		cut := &cuttingReader{strings.NewReader(msg), rand.New(rand.NewPCG(seed, 1))}
		if again, err := Sign(cut, keys, signTime); err != nil || again != fields {
			t.Fatalf("read in other pieces: %v\n%s\n%s", err, again, fields)
		}
		if strings.Contains(strings.ReplaceAll(msg, "\r\n", ""), "\r") {
			return // verifiers do not agree on it, and the server refuses it
		}
		results, err := Verify(t.Context(), strings.NewReader(fields+msg), published(keys...))
		if errors.Is(err, ErrHeader) {
			return
		}
		if err != nil || len(results) == 0 || results[0].Kind != Pass && !errors.Is(results[0].Err, ErrHeader) {
			t.Fatalf("Verify: %+v, %v\n%s%s", results, err, fields, msg)
		}
	})
}

// A cuttingReader returns pieces of any size.
type cuttingReader struct {
	r    io.Reader
	rand *rand.Rand
}

func (c *cuttingReader) Read(p []byte) (int, error) {
	return c.r.Read(p[:min(len(p), c.rand.IntN(20))])
}

func BenchmarkSign4KiB(b *testing.B) {
	msg := []byte(head + "\r\n" + strings.Repeat("A line of ordinary text, as long as most lines of mail are.\r\n", 64))
	for _, k := range testKeys() {
		b.Run(k.Selector, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Sign(bytes.NewReader(msg), []*Key{k}, signTime); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkBody2MB(b *testing.B) {
	for name, line := range map[string]string{
		"base64": strings.Repeat("QUJDREVGR0hJ", 6) + "ABCD\r\n",
		"text":   "A line of ordinary text, as long as most of the lines in a mail are.\r\n",
		"spaces": "  a  table \t with   columns \t and  white  space  behind   \r\n",
	} {
		body := []byte(strings.Repeat(line, 2_000_000/len(line)))
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			out := make([]byte, 0, bufferSize)
			for b.Loop() {
				c := relaxedBody{hash: sha256.New(), out: out}
				for rest := body; len(rest) > 0; {
					n := min(len(rest), bufferSize)
					c.Write(rest[:n])
					rest = rest[n:]
				}
				c.close()
			}
		})
	}
	b.Run("hash alone", func(b *testing.B) {
		body := make([]byte, 2_000_000)
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			_ = fmt.Sprint(sha256.Sum256(body)[0])
		}
	})
}
