package relay

import (
	"strings"

	"relayd/address"
	"relayd/message"
	"relayd/queue"
)

// Notify puts a mail of relayd's own to the postmaster of the settings into the queue: one like any
// other, but with no way back. Lines of text may end in LF. It is logged, too; without a postmaster that
// has to do.
func (in *Inbound) Notify(subject, text string) error {
	in.Log.Error(subject, "text", text)
	if in.Config.Postmaster == "" {
		return nil
	}
	to, err := address.Parse(in.Config.Postmaster)
	if err != nil {
		return err
	}
	now, hostname := in.Now(), in.Config.Hostname
	id := queue.NewID(now)
	var b strings.Builder
	for _, line := range []string{
		"From: relayd <mailer-daemon@" + hostname + ">", "To: <" + to.String() + ">", "Subject: " + subject,
		"Date: " + message.Date(now), "Message-ID: <" + id + "@" + hostname + ">", "Auto-Submitted: auto-generated",
		"MIME-Version: 1.0", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit", "",
	} {
		b.WriteString(line + "\r\n")
	}
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight(line, "\r\n") + "\r\n")
	}
	return in.queue.Add(&queue.Envelope{
		ID: id, Received: now, EightBit: true, UTF8: !to.ASCII(), Recipients: []queue.Recipient{{Address: to, Notify: []string{"NEVER"}}},
	}, strings.NewReader(b.String()))
}
