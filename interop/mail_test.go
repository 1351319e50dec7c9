//go:build interop

package interop

import "strings"

// ownMail are messages like those that break relays, in the line ends of the wire. They go with
// the corpus, and stand for it where that is missing.
var ownMail = map[string]string{
	"own-8bit.eml":          "From: Jörg <joerg@author.test>\r\nSubject: Grüße\r\n\r\nÄÖÜ \xff\xfe\r\n",
	"own-binary.eml":        "From: a@author.test\r\n\r\n\x00\x01\x7f\x80\xff\r\n",
	"own-dots.eml":          "From: a@author.test\r\n\r\n.\r\n..\r\n...\r\n.x\r\n.\r\n",
	"own-empty-body.eml":    "From: a@author.test\r\nSubject: x\r\n\r\n",
	"own-header-only.eml":   "From: a@author.test\r\nSubject: no blank line\r\n",
	"own-body-only.eml":     "\r\nno header at all\r\n",
	"own-no-header.eml":     "this is no field\r\nnor this\r\n",
	"own-two-from.eml":      "From: a@author.test\r\nFrom: b@author.test\r\nSubject: x\r\n\r\nx\r\n",
	"own-two-subjects.eml":  "Subject: one\r\nFrom: a@author.test\r\nSubject: two\r\nTo: x@y.test\r\nTo: z@y.test\r\n\r\nx\r\n",
	"own-long-line.eml":     "From: a@author.test\r\nSubject: " + strings.Repeat("long ", 3000) + "\r\n\r\n" + strings.Repeat("x", 100_000) + "\r\n",
	"own-large.eml":         "From: a@author.test\r\n\r\n" + strings.Repeat(strings.Repeat("y", 76)+"\r\n", 10_000),
	"own-white-space.eml":   "From : a@author.test\r\nSubject:x\r\n  folded  \t \r\n\tagain\r\nX-Empty:\r\n \r\n\r\nx  \t \r\n\t\r\n\r\n\r\n",
	"own-folded-names.eml":  "FROM: a@author.test\r\nsUBJECT: x\r\nTo:\r\n x@y.test,\r\n z@y.test\r\n\r\nx\r\n",
	"own-begins-folded.eml": " a continued line comes first\r\nFrom: a@author.test\r\n\r\nx\r\n",
	"own-mbox-line.eml":     "From someone Mon Jun  1 12:00:00 2026\r\nFrom: a@author.test\r\n\r\nx\r\n",
	"own-blank-lines.eml":   "From: a@author.test\r\n\r\n\r\n\r\n\r\n\r\n",
	"own-delivered-to.eml":  "Delivered-To: x@example.test\r\nX-Forwarded-To: y@mailbox.test\r\nFrom: a@author.test\r\n\r\nx\r\n",
	"own-signed-elsewhere.eml": "DKIM-Signature: v=1; a=rsa-sha256; d=list.test; s=x; h=from:delivered-to:x-forwarded-to; bh=AA==; b=AA==\r\n" +
		"From: a@author.test\r\n\r\nx\r\n",
}
