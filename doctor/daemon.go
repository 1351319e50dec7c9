package doctor

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"relayd/control"
	"relayd/problem"
)

// queueOld is when mail in the queue is worth a word.
const queueOld = 4 * time.Hour

// CheckDaemon judges what a running relayd says of itself.
func (d *Doctor) CheckDaemon(s control.Status) []Finding {
	list := []Finding{finding(OK, "relayd", "it runs, version %s", s.Version)}
	for _, p := range s.Problems {
		list = append(list, ofFile(Fail, p))
	}
	for _, p := range s.Warnings {
		list = append(list, ofFile(Warn, p))
	}
	return append(list, d.judgeQueue(s)...)
}

// ofFile names the file, and the line in it, once.
func ofFile(status Status, p problem.Problem) Finding {
	place := strings.TrimSuffix(problem.At(p.File, p.Line, "").String(), ": ")
	return finding(status, "file "+place, "%s", p.Reason)
}

func (d *Doctor) judgeQueue(s control.Status) []Finding {
	var list []Finding
	if s.Health.Failure != "" {
		list = append(list, finding(Fail, "queue", "no mail is taken, writing it to disk has failed: %s", s.Health.Failure).
			do("look at the disk (dmesg, df), mend it, then: systemctl restart relayd"))
	}
	if n := len(s.Health.Damaged); n > 0 {
		list = append(list, finding(Fail, "queue", "it was damaged; files that were set aside: %d", n).do("find out what is hit: relay-util queue-check"))
	}
	if s.Queue.Held > 0 {
		list = append(list, finding(Warn, "queue", "messages that are held: %d", s.Queue.Held).do("look why: relay-util queue-list --state held"))
	}
	if age := d.opt.Now().Sub(s.Queue.Oldest); !s.Queue.Oldest.IsZero() && age > queueOld {
		list = append(list, finding(Warn, "queue", "the oldest message waits for %v", age.Round(time.Hour)).do("look why: relay-util queue-list --older 4h"))
	}
	if len(list) == 0 {
		list = append(list, finding(OK, "queue", "%s", fmt.Sprintf("messages that wait: %d", s.Queue.Messages)))
	}
	return list
}

// NoDaemon is the finding where a daemon did not say how it fares.
func NoDaemon(err error) Finding {
	f := finding(Fail, "relayd", "%v", err)
	if errors.Is(err, control.ErrNotRunning) {
		return f.do("systemctl start relayd, and look at journalctl -u relayd")
	}
	return f.do("run relay-util check with sudo; if that does not help, look at journalctl -u relayd")
}
