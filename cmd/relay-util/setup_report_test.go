package main

import (
	"bufio"
	"bytes"
	"fmt"
	"strings"
	"testing"

	"relayd/doctor"
)

// However much there is to say, a person sees all of it at once.
func TestSetupFitsAScreen(t *testing.T) {
	for _, lines := range []int{3, 13} {
		r := &setupReport{Domain: "example.org", Found: make([]string, 2), Made: make([]string, lines), Start: "relayd"}
		for i := range 9 {
			r.Records = append(r.Records, doctor.Record{Name: fmt.Sprintf("r%d", i), Type: "A", Value: "192.0.2.1"})
		}
		r.Findings = []doctor.Finding{
			{Status: doctor.OK, Name: "r0", Type: "A"},
			{Status: doctor.Fail, Name: "r1", Type: "A"},
			{Status: doctor.Fail, Name: "r2", Type: "A", Found: []string{"192.0.2.9"}},
			{Status: doctor.Fail, Name: "r4", Type: "A", Found: []string{"192.0.2.1."}},
			{Status: doctor.Warn, Name: "r3", Type: "A", Found: []string{"192.0.2.1", "192.0.2.2"}},
		}
		for i := range 20 {
			r.Findings = append(r.Findings, doctor.Finding{Status: doctor.Warn, Subject: fmt.Sprintf("thing %d", i), Text: "odd\nly", Do: "mend it"})
		}
		var out bytes.Buffer
		tool := &tool{out: bufio.NewWriter(&out), stdout: &out}
		if err := r.print(tool); err != nil {
			t.Fatal(err)
		}
		tool.out.Flush()
		text := out.String()
		if n := strings.Count(text, "\n") + len(r.Found) + len(r.Made); n != maxLines {
			t.Errorf("%d lines:\n%s", n, text)
		}
		if lines == 3 && !strings.Contains(text, "\nwarn  thing 0: odd ly → mend it\n") {
			t.Errorf("nothing is said of thing 0:\n%s", text)
		}
		for _, want := range []string{"Check: 1 thing right", "ok       r0", "missing  r1", "WRONG    r2", "look     r3", "look     r4", "-        r5", " more\n", "1 record missing"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in:\n%s", want, text)
			}
		}
	}
}
