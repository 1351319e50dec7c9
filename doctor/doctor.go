// Package doctor knows which DNS records a forwarding domain needs, and finds out whether the world
// is as it should be: records, reverse DNS, ports, certificates, files, disk, clock, block lists.
//
// It promises:
//
//   - Every wait has an end: a question to a server, each check, and all checks together, so that
//     the whole takes less than a minute even where nothing answers.
//   - Nothing is changed and no message is sent.
//   - What did not answer is said to be unknown, and never taken for missing.
//   - Findings come in the order of the checks, however long each of them took.
//   - Text from outside stands in findings with control characters taken out.
//
// Records are asked for at the authoritative servers of their zones, so that a mend is seen at once,
// whatever the caches of resolvers still hold.
//
// Sources: RFC 1035 (zone files), RFC 7208 (SPF), RFC 6376 (DKIM), RFC 9989 (DMARC), RFC 8461
// (MTA-STS), RFC 8460 (TLS reports), RFC 6186 and 8314 (SRV), RFC 8659 (CAA), RFC 7672 (DANE), RFC
// 5782 (block lists), RFC 5321 section 5.1 and RFC 2181 section 10.3 (MX).
package doctor

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Status is how a finding is meant.
type Status string

// The Statuses. Fail alone makes the answer no; Info is advice, or something that was not checked.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
	Info Status = "info"
)

// A Finding is one line of the answer.
type Finding struct {
	Status  Status   `json:"status"`
	Subject string   `json:"subject"`         // what was looked at, such as "MX example.org"
	Text    string   `json:"text"`            // what was found, without a full stop
	Do      string   `json:"do,omitempty"`    // how to mend it
	Name    string   `json:"name,omitempty"`  // of the record, if it is about one
	Type    string   `json:"type,omitempty"`  // of it
	Value   string   `json:"value,omitempty"` // that it should have
	Found   []string `json:"found,omitempty"` // that it has
}

// finding makes a Finding.
func finding(status Status, subject, format string, args ...any) Finding {
	return Finding{Status: status, Subject: subject, Text: plain(fmt.Sprintf(format, args...))}
}

// do adds how to mend it, if anything is to be.
func (f Finding) do(format string, args ...any) Finding {
	if f.Status != OK {
		f.Do = plain(fmt.Sprintf(format, args...))
	}
	return f
}

// OKAll reports whether nothing failed.
func OKAll(list []Finding) bool {
	for _, f := range list {
		if f.Status == Fail {
			return false
		}
	}
	return true
}

// plain takes out of a text from outside what could make a terminal do something.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
}

// A Check is one thing to look at.
type Check struct {
	Name string
	Run  func(ctx context.Context) []Finding
}

const (
	// checkTime is what all checks together may take.
	checkTime = 50 * time.Second
	// atOnce bounds how many run at a time.
	atOnce = 16
)

// Run makes all checks, several at a time, and returns their findings in the order of the checks. It
// calls progress, from one goroutine at a time, whenever one is done; nil is for nobody.
func Run(ctx context.Context, checks []Check, progress func(done, total int)) []Finding {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	var mu sync.Mutex
	done := 0
	found := make([][]Finding, len(checks))
	each(len(checks), func(i int) {
		found[i] = checks[i].Run(ctx)
		if found[i] == nil && ctx.Err() != nil {
			found[i] = []Finding{finding(Warn, checks[i].Name, "there was no time left for it").do("look again")}
		}
		mu.Lock()
		defer mu.Unlock()
		if done++; progress != nil {
			progress(done, len(checks))
		}
	})
	var list []Finding
	for _, f := range found {
		list = append(list, f...)
	}
	return list
}

// each calls f for 0 to n-1, several at a time, and returns when all are done.
func each(n int, f func(i int)) {
	slots := make(chan struct{}, atOnce)
	var tasks sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		tasks.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	tasks.Wait()
}
