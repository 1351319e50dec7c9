package message

import (
	"strings"
	"testing"
	"time"
)

var clock = time.Date(2026, 11, 22, 9, 30, 0, 0, time.FixedZone("", 3600))

const (
	dateField = "Date: Sun, 22 Nov 2026 09:30:00 +0100\r\n"
	idField   = "Message-ID: <ID@example.org>\r\n"
	mimeField = "MIME-Version: 1.0\r\n"
	utf8Type  = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n"
	complete  = "Date: x\r\nMessage-ID: y\r\n"
)

func TestComplete(t *testing.T) {
	tests := []struct {
		name, header, body, want string
	}{
		{"all is missing", "", "x", dateField + idField},
		{"no header at all", "\r\n", "x", dateField + idField},
		{"nothing is missing", complete, "x", ""},
		{"in another case", "DATE: x\r\nmessage-id : y\r\n", "x", ""},
		{"fields without a value are there", "Date:\r\nMessage-ID:\r\n", "x", ""},
		{"date only", "Message-ID: y\r\n", "x", dateField},
		{"signed", "DKIM-Signature: h=from:date:message-id\r\n", "x", ""},
		{"one is signed", "DKIM-Signature: h=from:Date\r\n", "x", idField},

		{"UTF-8 body", complete, "größe", mimeField + utf8Type},
		{"UTF-8 header", complete + "Subject: größe\r\n", "x", mimeField + utf8Type},
		{"what is not UTF-8", complete, "gr\xf6\xdfe", ""},
		{"UTF-8 with one wrong byte", complete, "größe" + strings.Repeat("x", 100_000) + "\xc3", ""},
		{"surrogates", complete, "\xed\xa0\x80", ""},
		{"MIME already", complete + "MIME-Version: 1.0\r\n", "größe", ""},
		{"type already", complete + "Content-Type: text/html\r\n", "größe", mimeField},
		{"type already, ASCII", complete + "Content-Type: text/html\r\n", "x", mimeField},
		{"encoding already", complete + "Content-Transfer-Encoding: 8bit\r\n", "gr\xf6\xdfe", mimeField},
		{"a MIME field is signed", complete + "DKIM-Signature: h=content-type\r\n", "größe", ""},
		{"MIME-Version is signed", complete + "Content-Type: text/html\r\nDKIM-Signature: h=mime-version\r\n", "x", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := take(t, []byte(tt.header+"\r\n"+tt.body))
			if got := m.Complete("ID", "example.org", clock); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// A character may be cut apart by the buffer that it is read into.
func TestUTF8IsFoundAcrossBuffers(t *testing.T) {
	for shift := range 5 {
		text := strings.Repeat("x", shift) + strings.Repeat("名😀", 30_000)
		if m := take(t, []byte(complete+"\r\n"+text)); m.Complete("ID", "h", clock) != mimeField+utf8Type {
			t.Errorf("shifted by %d it is not taken for UTF-8", shift)
		}
		if m := take(t, []byte(complete+"\r\n"+text[:len(text)-1])); m.Complete("ID", "h", clock) != "" {
			t.Errorf("shifted by %d and cut off it is taken for UTF-8", shift)
		}
	}
}
