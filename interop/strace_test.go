package interop

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// A call is one system call in the output of strace -f -y -ttt. It lasts from one line to another,
// with lines of other threads between them.
type call struct {
	name, args, result string
	began, ended       int // lines; ended is beyond all lines for one that has not returned
	line               string
}

var (
	callLine    = regexp.MustCompile(`^(\d+)\s+(\d+\.\d+) (\w+)\((.*)$`)
	resumedLine = regexp.MustCompile(`^(\d+)\s+(\d+\.\d+) <\.\.\. (\w+) resumed>(.*)$`)
)

// unfinished ends the first line of a call that lasts longer.
const unfinished = " <unfinished ...>"

// parseTrace reads what strace has written. Lines about signals and exits are left out.
func parseTrace(text string) []*call {
	var calls []*call
	open := map[string]*call{} // by thread
	lines := strings.Split(text, "\n")
	for n, line := range lines {
		if m := resumedLine.FindStringSubmatch(line); m != nil && open[m[1]] != nil {
			open[m[1]].end(n, m[4])
			delete(open, m[1])
		} else if m := callLine.FindStringSubmatch(line); m != nil {
			c := &call{name: m[3], args: m[4], began: n, ended: len(lines), line: line}
			calls = append(calls, c)
			if args, ok := strings.CutSuffix(m[4], unfinished); ok {
				c.args = args
				open[m[1]] = c
			} else {
				c.args = ""
				c.end(n, m[4])
			}
		}
	}
	return calls
}

// end notes where a call returned, and the rest of its arguments and the result that stand there.
func (c *call) end(line int, rest string) {
	c.ended = line
	if i := strings.LastIndex(rest, ") = "); i >= 0 {
		c.args += rest[:i]
		c.result = rest[i+len(") = "):]
	}
}

// file is the path of the file that a call on a descriptor is about.
func (c *call) file() string {
	_, rest, _ := strings.Cut(c.args, "<")
	path, _, _ := strings.Cut(rest, ">")
	return path
}

// A proof is the calls that made a message durable, in the order in which they returned.
type proof []*call

// durable looks in a trace for what must have happened before message id was answered 250: its
// frame in the journal and its body, if that is a file, written and then synced, and the folder of
// the file synced after it was made. It returns an error that says what is missing.
func durable(calls []*call, id string, large bool) (proof, error) {
	answer := first(calls, 0, func(c *call) bool {
		return strings.HasPrefix(c.name, "write") && strings.Contains(c.args, "250 2.0.0 Ok: queued as "+id)
	})
	if answer == nil {
		return nil, fmt.Errorf("no answer of 250 for %s", id)
	}
	frame := first(calls, 0, func(c *call) bool {
		return c.name == "pwrite64" && strings.HasSuffix(c.file(), ".log") && strings.Contains(c.args, id)
	})
	if frame == nil {
		return nil, fmt.Errorf("%s is never written to the journal", id)
	}
	synced, err := syncedAfter(calls, frame, frame.file(), answer)
	if err != nil {
		return nil, err
	}
	evidence := proof{frame, synced}
	// Where the journal's file is a new one, its name must be durable, too.
	if made := first(calls, 0, func(c *call) bool { return c.name == "renameat" && strings.HasSuffix(c.args, `"`+frame.file()+`"`) }); made != nil {
		if _, err := syncedAfter(calls, made, filepath.Dir(frame.file()), answer); err != nil {
			return nil, err
		}
	}
	if large {
		more, err := durableFile(calls, id, answer)
		if err != nil {
			return nil, err
		}
		if last := more[len(more)-1]; last.ended >= frame.began {
			return nil, fmt.Errorf("the journal speaks of the body before it is durable: %.100s", last.line)
		}
		evidence = append(more, evidence...)
	}
	return append(evidence, answer), nil
}

// durableFile is the part of durable about the file of a large body.
func durableFile(calls []*call, id string, answer *call) (proof, error) {
	created := first(calls, 0, func(c *call) bool {
		return c.name == "openat" && strings.Contains(c.args, "/large/"+id) && strings.Contains(c.args, "O_CREAT")
	})
	if created == nil {
		return nil, fmt.Errorf("no file is made for the body of %s", id)
	}
	var written *call
	for _, c := range calls {
		if strings.HasPrefix(c.name, "pwrite") && strings.HasSuffix(c.file(), "/large/"+id) && c.began < answer.began {
			written = c
		}
	}
	if written == nil {
		return nil, fmt.Errorf("nothing is written to the file of %s", id)
	}
	synced, err := syncedAfter(calls, written, written.file(), answer)
	if err != nil {
		return nil, err
	}
	folder, err := syncedAfter(calls, created, filepath.Dir(written.file()), answer)
	return proof{created, written, synced, folder}, err
}

// syncedAfter finds a sync of path that began after c had returned and was over before the answer
// was begun.
func syncedAfter(calls []*call, c *call, path string, answer *call) (*call, error) {
	found := first(calls, c.ended+1, func(s *call) bool {
		return (s.name == "fdatasync" || s.name == "fsync") && s.file() == path && s.result == "0" && s.ended < answer.began
	})
	if found == nil {
		return nil, fmt.Errorf("no sync of %s between %.80q and the answer", path, c.line)
	}
	return found, nil
}

// first is the first call that began at a line or later and fits.
func first(calls []*call, line int, fits func(*call) bool) *call {
	i := slices.IndexFunc(calls, func(c *call) bool { return c.began >= line && fits(c) })
	if i < 0 {
		return nil
	}
	return calls[i]
}

// String shows the calls with times in milliseconds since the first, paths and data shortened.
func (p proof) String() string {
	var b strings.Builder
	var zero float64
	for i, c := range p {
		m := callLine.FindStringSubmatch(c.line)
		at, _ := strconv.ParseFloat(m[2], 64)
		if i == 0 {
			zero = at
		}
		fmt.Fprintf(&b, "%8.3f ms  %s(%s) = %s\n", (at-zero)*1000, c.name, shorten(c.args), shorten(c.result))
	}
	return b.String()
}

var (
	here    = regexp.MustCompile(`AT_FDCWD<[^>]*>`)
	folders = regexp.MustCompile(`/[^<>" ]*/state/queue/`)
	data    = regexp.MustCompile(`"([^"\\]|\\.)*"(\.\.\.)?`)
	queueID = regexp.MustCompile(`(queued as |\\"id\\":\\"|/)([A-Z0-9]{8,32})`)
)

// shorten leaves of a call's text what a reader looks for.
func shorten(s string) string {
	s = folders.ReplaceAllString(here.ReplaceAllString(s, "AT_FDCWD"), "…/queue/")
	return data.ReplaceAllStringFunc(s, func(d string) string {
		if m := queueID.FindString(d); m != "" {
			return `"…` + m + `…"`
		}
		if len(d) > 40 {
			return `"…"`
		}
		return d
	})
}

// Traces of a small and a large message, as strace writes them.
const (
	smallTrace = `
11 100.000010 renameat(AT_FDCWD</>, "/s/state/queue/log/0000000001.log.new", AT_FDCWD</>, "/s/state/queue/log/0000000001.log") = 0
11 100.000020 fsync(6</s/state/queue/log>) = 0
11 100.001000 pwrite64(7</s/state/queue/log/0000000001.log>, "\1{\"id\":\"M1AAAAAAAA\"}", 20, 512 <unfinished ...>
12 100.001100 write(9<socket:[5]>, "354 go on\r\n", 11) = 11
11 100.001200 <... pwrite64 resumed>) = 20
11 100.001300 fdatasync(7</s/state/queue/log/0000000001.log> <unfinished ...>
12 100.001350 --- SIGURG {si_signo=SIGURG} ---
11 100.003000 <... fdatasync resumed>) = 0
12 100.003100 write(9<socket:[5]>, "250 2.0.0 Ok: queued as M1AAAAAAAA\r\n", 36) = 36
`
	largeTrace = `
11 100.000100 openat(AT_FDCWD</>, "/s/state/queue/large/M1AAAAAAAA", O_RDWR|O_CREAT|O_EXCL|O_CLOEXEC, 0600) = 8</s/state/queue/large/M1AAAAAAAA>
11 100.000200 pwrite64(8</s/state/queue/large/M1AAAAAAAA>, "From: a"..., 65537, 0) = 65537
11 100.000300 pwrite64(8</s/state/queue/large/M1AAAAAAAA>, "xxxxxxx"..., 40000, 65537) = 40000
11 100.000400 fdatasync(8</s/state/queue/large/M1AAAAAAAA>) = 0
11 100.000500 fsync(10</s/state/queue/large>) = 0
`
)

// TestDurableFindsWhatIsMissing takes one thing after another out of a good trace.
func TestDurableFindsWhatIsMissing(t *testing.T) {
	for _, test := range []struct {
		name     string
		large    bool
		old, new string // a replacement in the trace; none for ""
		want     string // in the error; "" for none
	}{
		{name: "a small message"},
		{name: "a large message", large: true},
		{name: "no sync", old: "fdatasync(7", new: "fstat(7", want: "no sync of /s/state/queue/log/"},
		{name: "the sync fails", old: "<... fdatasync resumed>) = 0", new: "<... fdatasync resumed>) = -1 EIO (Input/output error)", want: "no sync of"},
		{name: "the sync is not over", old: "11 100.003000 <... fdatasync resumed>) = 0\n", want: "no sync of"},
		{name: "the sync began before the write was over", old: "11 100.001200 <... pwrite64 resumed>) = 20\n", want: "no sync of"},
		{name: "the sync of another file", old: "fdatasync(7</s/state/queue/log/0000000001", new: "fdatasync(7</s/state/queue/log/0000000002", want: "no sync of"},
		{name: "the name of the journal is not synced", old: "fsync(6", new: "fstat(6", want: "no sync of /s/state/queue/log "},
		{name: "never written", old: "M1AAAAAAAA\\\"}", new: "M2AAAAAAAA\\\"}", want: "never written"},
		{name: "no answer", old: "queued as M1", new: "queued as M2", want: "no answer"},
		{name: "the body is not synced", large: true, old: "fdatasync(8", new: "fstat(8", want: "no sync of /s/state/queue/large/M1AAAAAAAA "},
		{name: "nor is its folder", large: true, old: "fsync(10", new: "fstat(10", want: "no sync of /s/state/queue/large "},
		{name: "more is written after the sync", large: true, old: "11 100.000300 pwrite64(8", new: "11 100.000300 fdatasync(8</s/state/queue/large/M1AAAAAAAA>) = 0\n11 100.000300 pwrite64(8"},
		{name: "only what came first is synced", large: true, old: "fdatasync(8</s/state/queue/large/M1AAAAAAAA>) = 0", new: "pwrite64(8</s/state/queue/large/M1AAAAAAAA>, \"x\", 1, 9) = 1", want: "no sync of"},
	} {
		text := smallTrace
		if test.large {
			text = largeTrace + smallTrace
		}
		if test.old != "" {
			if changed := strings.Replace(text, test.old, test.new, 1); changed != text {
				text = changed
			} else {
				t.Fatalf("%s: %q is not in the trace", test.name, test.old)
			}
		}
		_, err := durable(parseTrace(text), "M1AAAAAAAA", test.large)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got error %v, want one with %q", test.name, err, test.want)
		}
	}
}
