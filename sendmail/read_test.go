package sendmail

import (
	"bufio"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"relayd/message"
)

func TestAddressesOfAList(t *testing.T) {
	for list, want := range map[string][]string{
		"root":                               {"root"},
		" root (Cron Daemon)\r\n":            {"root"},
		"a@x, <b@x> ,\r\n C <c@x>":           {"a@x", "b@x", "c@x"},
		`"D, E" <d@x>, "q, r"@x`:             {"d@x", `"q, r"@x`},
		"(a, b) e@x (c (d), e)":              {"e@x"},
		"undisclosed-recipients:;":           nil,
		"Group: f@x, g@x; , h@x":             {"f@x", "g@x", "h@x"},
		"u@[IPv6:::1], < i@x >":              {"u@[IPv6:::1]", "i@x"},
		"<>, , ()":                           nil,
		`"open <j@x>`:                        {`"open <j@x>`},
		"(open k@x":                          nil,
		"<l@x":                               nil,
		"John Doe":                           {"John Doe"}, // which is no address, and found out later
		`"a\" <no@x>" <m@x>`:                 {"m@x"},
		"n@x <o@x>":                          {"o@x"},
		"=?utf-8?q?J=C3=B6rg?= <p@x>, q@x\t": {"p@x", "q@x"},
	} {
		if got := addresses(list); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", list, got, want)
		}
	}
}

// read is Read with a request that names these recipients.
func read(t *testing.T, text string, opt Options, to ...string) (string, *Request, error) {
	t.Helper()
	opt.TempDir = t.TempDir()
	if opt.Limit == 0 {
		opt.Limit = 1 << 20
	}
	req := &Request{Recipients: to}
	m, err := Read(strings.NewReader(text), req, opt)
	if err != nil {
		return "", req, err
	}
	defer m.Close()
	got, err := io.ReadAll(m.Reader())
	if err != nil || int64(len(got)) != req.Size {
		t.Errorf("%d bytes %v, and the request says %d", len(got), err, req.Size)
	}
	return string(got), req, nil
}

func TestRead(t *testing.T) {
	for _, c := range []struct {
		name, in, want string
		opt            Options
		args, to       []string
	}{
		{name: "a text alone", in: "hi\nthere: x\n", want: "\r\nhi\r\nthere: x\r\n", args: []string{"root"}, to: []string{"root"}},
		{name: "nothing", in: "", want: "\r\n", args: []string{"root"}, to: []string{"root"}},
		{name: "a header alone", in: "Subject: x", want: "Subject: x\r\n\r\n", args: []string{"root"}, to: []string{"root"}},
		{name: "of a mailbox file", in: "From me Mon\nSubject: x\n\nb\n", want: "Subject: x\r\n\r\nb\r\n", args: []string{"a"}, to: []string{"a"}},
		{name: "a header that ends early", in: "Subject: x\nno field\n\nb\n", want: "Subject: x\r\n\r\nno field\r\n\r\nb\r\n", args: []string{"a"}, to: []string{"a"}},
		{name: "-t", in: "To: a@x,\n b@x\nCC: c@x\nbcc: d@x,\n e@x\nX: y\n\nBcc: f@x\n", opt: Options{Extract: true},
			want: "To: a@x,\r\n b@x\r\nCC: c@x\r\nX: y\r\n\r\nBcc: f@x\r\n", args: []string{"g@x"}, to: []string{"g@x", "a@x", "b@x", "c@x", "d@x", "e@x"}},
		{name: "Bcc without -t", in: "To: a@x\nBcc: d@x\n\n", want: "To: a@x\r\n\r\n", args: []string{"g@x"}, to: []string{"g@x"}},
	} {
		got, req, err := read(t, c.in, c.opt, c.args...)
		if err != nil || got != c.want || !slices.Equal(req.Recipients, c.to) {
			t.Errorf("%s: %q to %q, %v", c.name, got, req.Recipients, err)
		}
	}
	for name, c := range map[string]struct {
		in   string
		opt  Options
		want error
	}{
		"nobody":          {"Subject: x\n\n", Options{Extract: true}, ErrNoRecipients},
		"too large":       {"To: a\n\n" + strings.Repeat("x", 100), Options{Extract: true, Limit: 100}, message.ErrTooLarge},
		"a large header":  {"To: a\nX: " + strings.Repeat("x", message.MaxHeaderBytes), Options{Extract: true}, message.ErrHeaderTooLarge},
		"too many fields": {strings.Repeat("To: a\n", message.MaxHeaderFields+1), Options{Extract: true}, message.ErrTooManyFields},
	} {
		if _, _, err := read(t, c.in, c.opt); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestArguments(t *testing.T) {
	for line, want := range map[string]string{
		"root":                               "f= F= to=[root] n=[] r= t=false i=false",
		"-t -i":                              "f= F= to=[] n=[] r= t=true i=true",
		"-ti":                                "f= F= to=[] n=[] r= t=true i=true",
		"-FCronDaemon -i -odi -oem -oi -t":   "f= F=CronDaemon to=[] n=[] r= t=true i=true",
		"-o i -o em a@x":                     "f= F= to=[a@x] n=[] r= t=false i=true",
		"-f me@x -- -a b,c":                  "f=me@x F= to=[-a b c] n=[] r= t=false i=false",
		"-f<me@x> -bm -em -U a":              "f=me@x F= to=[a] n=[] r= t=false i=false",
		"-f <> a":                            "f=<> F= to=[a] n=[] r= t=false i=false",
		"-N success,failure -R hdrs -V id a": "f= F= to=[a] n=[SUCCESS FAILURE] r=HDRS t=false i=false",
		"-B 8BITMIME -O X=y -L tag -Am a":    "f= F= to=[a] n=[] r= t=false i=false",
	} {
		c, err := ParseArgs(strings.Fields(line))
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		got := strings.Join([]string{"f=" + c.Sender, "F=" + c.Name, "to=[" + strings.Join(c.Recipients, " ") + "]", "n=[" + strings.Join(c.Notify, " ") + "]",
			"r=" + c.Return, "t=" + yes(c.Extract), "i=" + yes(c.KeepDot)}, " ")
		if got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
	for _, line := range []string{"", "-i", "-f", "-bs a", "-bd", "-q a", "-N never,delay a", "-N often a", "-R some a", "--nonsense a"} {
		if c, err := ParseArgs(strings.Fields(line)); err == nil {
			t.Errorf("%s: %+v", line, c)
		}
	}
	if c, err := ParseArgs([]string{"-bp", "--config", "f"}); err != nil || !c.ListQueue || c.Settings != "f" {
		t.Errorf("-bp: %+v %v", c, err)
	}
}

func yes(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

// FuzzRead: whatever a program writes, what comes out is a message of whole lines without Bcc, and with
// every recipient a part of the header.
func FuzzRead(f *testing.F) {
	f.Add("To: a@x, \"b\\\" <c@x>\nBcc: (d (e\n\nBcc: x\n", true)
	f.Add("From x\nTo: <\n  :;,[\"\\", false)
	f.Add("hi\r.\r\n.\n", true)
	f.Fuzz(func(t *testing.T, text string, dot bool) {
		req := &Request{}
		m, err := Read(strings.NewReader(text), req, Options{Extract: true, KeepDot: !dot, TempDir: os.TempDir(), Limit: 1 << 20})
		if err != nil {
			return
		}
		defer m.Close()
		if m.Header.Has("Bcc") || m.Header.Has("Resent-Bcc") {
			t.Fatalf("Bcc is left in %q", m.Header.Raw())
		}
		for _, to := range req.Recipients {
			if to == "" || strings.Trim(to, " \t\r\n") != to || len(to) > len(text)*2 {
				t.Fatalf("recipient %q", to)
			}
		}
		whole, err := io.ReadAll(m.Reader())
		if err != nil || req.Size != int64(len(whole)) || !strings.Contains(string(whole), "\r\n") {
			t.Fatalf("%q %v", whole, err)
		}
		again, err := Read(strings.NewReader(string(whole)), &Request{Recipients: []string{"a"}}, Options{KeepDot: true, TempDir: os.TempDir(), Limit: 1 << 21})
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		if twice, _ := io.ReadAll(again.Reader()); string(twice) != string(whole) {
			t.Fatalf("%q becomes %q the second time", whole, twice)
		}
	})
}

// FuzzRequest: what is read can be written and read again.
func FuzzRequest(f *testing.F) {
	f.Add(`{"sender":"","recipients":["a@x"],"size":16}` + "\n")
	f.Add(`{"sender":"<>","notify":["NEVER"],"ret":"HDRS","envid":"x","recipients":null,"size":-1}` + "\n")
	f.Fuzz(func(t *testing.T, text string) {
		req, length, err := readRequest(bufio.NewReader(strings.NewReader(text)))
		if err != nil {
			return
		}
		if length > len(text) || req.Size < 0 {
			t.Fatalf("%d bytes, %+v", length, req)
		}
		line, err := req.line()
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := readRequest(bufio.NewReader(strings.NewReader(string(line)))); err != nil && len(line) < maxRequest {
			t.Fatalf("%q: %v", line, err)
		}
	})
}
