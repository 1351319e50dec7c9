package srs

import (
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
	"time"
)

// A line of the token file is a checksum of 8 hexadecimal digits, a blank, and the text. The
// text is "key HEX" once, and "TOKEN EXPIRES SENDER" for each entry: seconds since 1970, and the
// sender as a Go string, which has no line end in it.

func formatLine(text string) string {
	return fmt.Sprintf("%08x %s\n", crc32.ChecksumIEEE([]byte(text)), text)
}

// checkedLine returns the text of a line, line end included, whose checksum is right.
func checkedLine(line string) (string, bool) {
	_, text, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
	return text, line == formatLine(text)
}

func formatToken(token string, s storedSender) string {
	return formatLine(token + " " + strconv.FormatInt(s.expires.Unix(), 10) + " " + strconv.QuoteToASCII(s.sender))
}

func parseToken(text string) (string, storedSender, bool) {
	token, rest, _ := strings.Cut(text, " ")
	expires, quoted, _ := strings.Cut(rest, " ")
	seconds, err := strconv.ParseInt(expires, 10, 64)
	if err != nil || token == "" {
		return "", storedSender{}, false
	}
	sender, err := strconv.Unquote(quoted)
	if err != nil {
		return "", storedSender{}, false
	}
	return token, storedSender{sender, time.Unix(seconds, 0)}, true
}
