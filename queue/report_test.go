package queue

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"relayd/reply"
)

// A report is a DSN, read back.
type report struct {
	raw    string
	header mail.Header
	people string                 // the part for people
	kinds  []string               // types of the parts
	about  textproto.MIMEHeader   // fields about the message
	each   []textproto.MIMEHeader // about each recipient
	given  string                 // the original or its header
}

// readReport reads a DSN, and finds fault with its form.
func readReport(raw string) (*report, error) {
	for line := range strings.SplitSeq(strings.TrimSuffix(raw, "\r\n"), "\r\n") {
		if strings.ContainsAny(line, "\r\n\x00") || len(line) > 998 {
			return nil, fmt.Errorf("a bad line of %d octets: %.80q", len(line), line)
		}
	}
	if !strings.HasSuffix(raw, "\r\n") {
		return nil, errors.New("the last line has no end")
	}
	m, err := mail.ReadMessage(strings.NewReader(raw))
	if err != nil {
		return nil, err
	}
	d := &report{raw: raw, header: m.Header}
	kind, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || params["report-type"] != "delivery-status" {
		return nil, fmt.Errorf("type %q: %v", m.Header.Get("Content-Type"), err)
	}
	if eightBit := m.Header.Get("Content-Transfer-Encoding") == "8bit"; eightBit == isASCII([]byte(raw)) {
		return nil, fmt.Errorf("8-bit is announced: %v", eightBit)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	for {
		p, err := parts.NextRawPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		content, err := io.ReadAll(p)
		if err != nil {
			return nil, err
		}
		if eightBit := p.Header.Get("Content-Transfer-Encoding") == "8bit"; eightBit == isASCII(content) {
			return nil, fmt.Errorf("8-bit is announced for %q: %v", content, eightBit)
		}
		if err := d.part(p.Header.Get("Content-Type"), content); err != nil {
			return nil, err
		}
	}
	if len(d.kinds) < 2 || len(d.each) == 0 {
		return nil, fmt.Errorf("parts %q", d.kinds)
	}
	return d, nil
}

func (d *report) part(kind string, content []byte) error {
	d.kinds = append(d.kinds, kind)
	switch len(d.kinds) {
	case 1:
		d.people = string(content)
	case 2:
		if kind == "message/delivery-status" && !isASCII(content) {
			return errors.New("a delivery-status that is not ASCII")
		}
		r := textproto.NewReader(bufio.NewReader(io.MultiReader(bytes.NewReader(content), strings.NewReader("\r\n"))))
		for group := range strings.SplitSeq(strings.TrimSuffix(string(content), "\r\n"), "\r\n\r\n") {
			h, err := r.ReadMIMEHeader()
			if err != nil || group == "" {
				return fmt.Errorf("fields %q: %v", group, err)
			}
			if d.about == nil {
				d.about = h
			} else {
				d.each = append(d.each, h)
			}
		}
	case 3:
		d.given = string(content)
	default:
		return errors.New("too many parts")
	}
	return nil
}

const original = "Received: from x by mx.example.org id AAAAAAAA\r\nMessage-ID: <1@example.org>\r\nSubject: hi\r\n\r\nHello\r\n"

// reports are the DSNs that follow from one attempt for e with outcome o.
func reports(t *testing.T, e *Envelope, body string, o Outcome) (list []*report) {
	t.Helper()
	bubble(t, func(t *testing.T) {
		r := newRig(t, func(_ context.Context, w *Work) []Outcome { return all(w, o) })
		r.run()
		for i := range e.Recipients {
			e.Recipients[i].Next = time.Now() // in the bubble it is another time
		}
		if err := r.Queue.Add(e, strings.NewReader(body)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		r.stop()
		for _, raw := range r.dsns {
			d, err := readReport(raw)
			if err != nil {
				t.Errorf("%v\n%s", err, raw)
				continue
			}
			list = append(list, d)
		}
	})
	return list
}

func one(t *testing.T, e *Envelope, body string, o Outcome) *report {
	t.Helper()
	list := reports(t, e, body, o)
	if len(list) != 1 {
		t.Fatalf("%d DSNs", len(list))
	}
	return list[0]
}

// check compares fields by name.
func check(t *testing.T, h map[string][]string, want map[string]string) {
	t.Helper()
	for name, value := range want {
		got := h[textproto.CanonicalMIMEHeaderKey(name)]
		if value == "" && len(got) > 0 || value != "" && (len(got) != 1 || got[0] != value) {
			t.Errorf("%s: %q, want %q", name, got, value)
		}
	}
}

func TestWhatIsGivenBack(t *testing.T) {
	const latin1 = "Subject: caf\xe9\r\n\r\nx\r\n"
	long := "X: " + strings.Repeat(strings.Repeat("y", 70)+"\r\n ", 1500) + "z\r\n\r\nbody\r\n"
	for name, test := range map[string]struct{ ret, body, kind, given string }{
		"RET=HDRS":      {"HDRS", original, "text/rfc822-headers", original[:strings.Index(original, "\r\n\r\n")+2]},
		"RET=FULL":      {"FULL", original, "message/rfc822", original},
		"8-bit body":    {"FULL", "Subject: x\r\n\r\ncaf\xc3\xa9\r\n", "message/rfc822", "Subject: x\r\n\r\ncaf\xc3\xa9\r\n"},
		"UTF-8 header":  {"", "Subject: caf\xc3\xa9\r\n\r\nx\r\n", "message/global-headers", "Subject: caf\xc3\xa9\r\n"},
		"UTF-8 message": {"FULL", "Subject: caf\xc3\xa9\r\n\r\nx\r\n", "message/global", "Subject: caf\xc3\xa9\r\n\r\nx\r\n"},
		"other bytes":   {"", latin1, "text/rfc822-headers", "Subject: caf\xe9\r\n"},
		"no body":       {"", "Subject: x\r\n", "text/rfc822-headers", "Subject: x\r\n"},
		"no header":     {"", "\r\nbody\r\n\r\nbody\r\n", "", ""},
		"nothing":       {"FULL", "", "", ""},
		"too large":     {"FULL", original + strings.Repeat("0123456789abcde\r\n", 5000), "text/rfc822-headers", original[:strings.Index(original, "\r\n\r\n")+2]},
		"long header":   {"", long, "text/rfc822-headers", long[:strings.LastIndex(long[:maxReturned], "\n")+1]},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnvelope(t, idA, "a@one.test")
			e.Return = test.ret
			d := one(t, e, test.body, gone)
			want := []string{"text/plain; charset=utf-8", "message/delivery-status"}
			if test.kind != "" {
				want = append(want, test.kind)
			}
			if !slices.Equal(d.kinds, want) || d.given != test.given {
				t.Errorf("parts %q, given back %.200q", d.kinds, d.given)
			}
		})
	}
}

func TestInternationalDSN(t *testing.T) {
	e := newEnvelope(t, idA, "jürgen@one.test", "b@one.test")
	e.UTF8, e.Recipients[0].Original = true, "utf-8;jürgen@one.test"
	d := one(t, e, original, Outcome{State: Failed, Reply: reply.New(550, "5.1.1", "Für Jürgen"), Host: "mx.one.test"})
	if d.kinds[1] != "message/global-delivery-status" {
		t.Errorf("parts %q", d.kinds)
	}
	check(t, d.each[0], map[string]string{
		"Original-Recipient": "utf-8;jürgen@one.test", "Final-Recipient": "utf-8; jürgen@one.test", "Diagnostic-Code": "smtp; 550 5.1.1 Für Jürgen",
	})
	check(t, d.each[1], map[string]string{"Final-Recipient": "rfc822; b@one.test"})
	ascii := one(t, newEnvelope(t, idA, "b@one.test"), original, Outcome{State: Failed, Reply: reply.New(550, "5.1.1", "Für \xff")})
	check(t, ascii.each[0], map[string]string{"Diagnostic-Code": "smtp; 550 5.1.1 F?r ?"})
}
