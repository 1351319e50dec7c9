package trace

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// story is what relayd logs of three messages: one is forwarded, one bounces, one is refused.
func story(h slog.Handler) {
	log := slog.New(h)
	log.Info("relayd is up")
	log.Info("accepted", "id", "AAAAAAAA", "client", "192.0.2.7", "from", "<bob@else.example>", "to", `<shop@example.org>, <"a, b"@example.org>`,
		"size", 2048, "message_id", "<1@else.example>", "copies", 1, "how", "queued")
	log.Info("accepted", "id", "BBBBBBBB", "client", "192.0.2.8", "from", "<app@example.org>", "user", "app@example.org", "to", "<nobody@far.example>",
		"size", 10, "message_id", "", "copies", 1, "how", "queued")
	log.Info("deferred", "id", "AAAAAAAA", "to", "<me@gmail.example>", "host", "mx.gmail.example [2001:db8::1]:25", "reply", `421 4.7.0 "slow" down`,
		"attempts", 1, "alias", "shop@example.org", "next", "2026-06-01T12:05:00Z")
	log.Warn("failed", "id", "BBBBBBBB", "to", "<nobody@far.example>", "host", "mx.far.example", "reply", "550 5.1.1 no such user", "attempts", 1)
	log.Info("DSN queued", "id", "CCCCCCCC", "about", "BBBBBBBB", "action", "failed", "to", "<app@example.org>")
	log.Info("delivered", "id", "AAAAAAAA", "to", "<me@gmail.example>", "host", "mx.gmail.example", "reply", "250 2.0.0 OK", "attempts", 2, "tls", "TLS1.3")
	log.Info("delivered", "id", "CCCCCCCC", "to", "<app@example.org>", "host", "", "reply", "250 OK", "attempts", 1)
	log.Warn("login refused", "client", "192.0.2.9", "user", "app@example.org")
	log.Info("refused", "id", "DDDDDDDD", "client", "192.0.2.7", "from", "<bob@else.example>", "refused", "<nobody@example.org>", "reply", "550 5.7.1 We do not relay")
}

// written is the story in one of the formats of [log].
func written(format string) string {
	var out bytes.Buffer
	if format == "json" {
		story(slog.NewJSONHandler(&out, nil))
	} else {
		story(slog.NewTextHandler(&out, nil))
	}
	text := out.String()
	if format == "syslog" {
		text = strings.ReplaceAll("\n"+text, "\ntime=", "\nJun  1 12:00:00 mx relayd[17]: time=")
	}
	return text
}

func find(t testing.TB, log, about string) ([]Event, bool) {
	t.Helper()
	events, more, err := Find(func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(log)), nil }, about)
	if err != nil {
		t.Fatal(err)
	}
	return events, more
}

func TestFind(t *testing.T) {
	for about, want := range map[string][]string{
		"AAAAAAAA": {
			`AAAAAAAA queued: brought by 192.0.2.7, from <bob@else.example> to <shop@example.org>, <"a, b"@example.org>, 2048 bytes, Message-ID <1@else.example>`,
			`AAAAAAAA put off until 2026-06-01T12:05:00Z: <me@gmail.example> for shop@example.org, at mx.gmail.example [2001:db8::1]:25, attempt 1: 421 4.7.0 "slow" down`,
			`AAAAAAAA delivered to <me@gmail.example>, at mx.gmail.example over TLS1.3, attempt 2: 250 2.0.0 OK`,
		},
		"BBBBBBBB": {
			"BBBBBBBB queued: brought by 192.0.2.8 as app@example.org, from <app@example.org> to <nobody@far.example>, 10 bytes",
			"BBBBBBBB given up: <nobody@far.example>, at mx.far.example, attempt 1: 550 5.1.1 no such user",
			"CCCCCCCC a notice (failed) about BBBBBBBB goes to <app@example.org>",
			"CCCCCCCC delivered to <app@example.org>, attempt 1: 250 OK",
		},
		"CCCCCCCC":           {"CCCCCCCC a notice (failed) about BBBBBBBB goes to <app@example.org>", "CCCCCCCC delivered to <app@example.org>, attempt 1: 250 OK"},
		"DDDDDDDD":           {"DDDDDDDD refused: brought by 192.0.2.7, from <bob@else.example>: 550 5.7.1 We do not relay"},
		"EEEEEEEE":           nil,
		"nobody@EXAMPLE.org": {"DDDDDDDD refused: brought by 192.0.2.7, from <bob@else.example>: 550 5.7.1 We do not relay"},
		"x@example.org":      nil,
		"pp@example.org":     nil,
		"app@EXAMPLE.org":    {"BBBBBBBB", "BBBBBBBB", "CCCCCCCC", "CCCCCCCC", " login refused: client 192.0.2.9, user app@example.org"},
		"me@gmail.example":   {"AAAAAAAA", "AAAAAAAA", "AAAAAAAA"}, // also the line that names only the alias
	} {
		for _, format := range []string{"text", "json", "syslog"} {
			got, _ := find(t, written(format), about)
			if !slices.EqualFunc(got, want, func(e Event, w string) bool { return strings.HasPrefix(e.ID+" "+e.Text, w) }) {
				t.Errorf("%s in %s:\n%+v\nwant\n%s", about, format, got, strings.Join(want, "\n"))
			}
		}
	}
}

// TestALongLog: what is kept has a bound, and is the newest; a line without an end hides no other.
func TestALongLog(t *testing.T) {
	var log strings.Builder
	for n := range 3*maxEvents + 5 {
		fmt.Fprintf(&log, "time=2026-06-01T12:00:00Z level=INFO msg=deferred id=AAAAAAAA attempts=%d\n", n)
	}
	log.WriteString(strings.Repeat("x", 2*maxLine) + "\ntime=2026-06-01T12:00:00Z msg=delivered id=AAAAAAAA")
	events, more := find(t, log.String(), "AAAAAAAA")
	if len(events) != maxEvents || !more || events[maxEvents-1].What != "delivered" || events[maxEvents-2].Fields["attempts"] != fmt.Sprint(3*maxEvents+4) {
		t.Errorf("%d events, more is %v", len(events), more)
	}
}

func TestALogThatCannotBeRead(t *testing.T) {
	broken := errors.New("broken")
	if _, _, err := Find(func() (io.ReadCloser, error) { return nil, broken }, "AAAAAAAA"); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// TestBothFormatsAreReadAsTheyWereWritten holds whatever stands in a line.
func TestBothFormatsAreReadAsTheyWereWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := map[string]string{}
		record := slog.NewRecord(time.Unix(1e9, 0), slog.LevelInfo, "happened", 0)
		for key, value := range rapid.MapOf(rapid.StringMatching(`[a-z]{1,3}[a-z =":]?`), rapid.String()).Draw(t, "fields") {
			if key != "id" && key != "msg" {
				record.AddAttrs(slog.String(key, value))
				want[key] = strings.ToValidUTF8(value, "\ufffd")
			}
		}
		for _, json := range []bool{false, true} {
			var out bytes.Buffer
			var h slog.Handler = slog.NewTextHandler(&out, nil)
			if json {
				h = slog.NewJSONHandler(&out, nil)
			}
			if err := h.Handle(t.Context(), record); err != nil {
				t.Fatal(err)
			}
			e, ok := Parse(strings.TrimRight(out.String(), "\n"))
			if !ok || e.What != "happened" || !reflect.DeepEqual(e.Fields, want) {
				t.Fatalf("%q is read as %+v, want %v", out.String(), e, want)
			}
			if _, untimed, _ := strings.Cut(out.String(), " "); !json {
				line := "1000000000.000123 mx.example relayd[77]: " + strings.TrimRight(untimed, "\n")
				if e, ok = Parse(line); !ok || e.At.UnixMicro() != 1e15+123 || e.What != "happened" || !reflect.DeepEqual(e.Fields, want) {
					t.Fatalf("%q is read as %+v, want %v", line, e, want)
				}
			}
		}
	})
}

func FuzzParse(f *testing.F) {
	for _, line := range []string{
		`time=2026-06-01T12:00:00Z level=INFO msg=a id=AAAAAAAA to="<\"x y\"@z>"`, `{"time":"2026-06-01T12:00:00Z","msg":"a","list":["x",1,null,{}]}`,
		`time= "=" "`, `{"time":`, `x time=2026-06-01T12:00:00Z msg="`,
		`1780315200.000001 mx relayd[7]: level=INFO msg=a id=AAAAAAAA`, `1780315200.1 mx relayd[7]: time=2026-06-01T12:00:00Z msg="x]: level=INFO msg=b"`,
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if e, ok := Parse(line); ok && (e.At.IsZero() && !strings.Contains(line, "0001") || e.What == "" || words(&e) == "") {
			t.Errorf("%q is %+v", line, e)
		}
	})
}
