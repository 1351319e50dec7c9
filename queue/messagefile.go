package queue

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// A message's file is a header line with the size of the body, the body, the envelope as a line
// of JSON, and a line of JSON for every change since: recipients by index. What follows from
// fewer changes than were made is more work, never less; so a change that cannot be read ends
// the file, and is made again.

// headerSize is the length of the first line: "relayd-queue 1 ", 19 digits, line end.
const headerSize = 35

func formatHeader(size int64) string { return fmt.Sprintf("relayd-queue 1 %019d\n", size) }

func parseHeader(f io.ReaderAt) (size int64, err error) {
	var b [headerSize]byte
	if n, err := f.ReadAt(b[:], 0); n < headerSize {
		return 0, fmt.Errorf("its first line is cut short: %w", err)
	}
	digits, ok := strings.CutPrefix(string(b[:]), "relayd-queue 1 ")
	digits, whole := strings.CutSuffix(digits, "\n")
	if !ok || !whole {
		return 0, errors.New("it is not a message of this version's queue")
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	return int64(n), err
}

// writeMessage writes a new message from the start of f. It sets e.Size.
func writeMessage(f file, e *Envelope, body io.Reader) (end int64, err error) {
	if _, err := io.WriteString(f, formatHeader(0)); err != nil {
		return 0, err
	}
	if e.Size, err = io.Copy(f, body); err != nil {
		return 0, err
	}
	line, err := json.Marshal(e)
	if err != nil {
		return 0, err
	}
	// What could not be read again must not be promised.
	var again Envelope
	if err := json.Unmarshal(line, &again); err != nil {
		return 0, fmt.Errorf("the envelope cannot be kept: %w", err)
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return 0, err
	}
	if _, err := f.WriteAt([]byte(formatHeader(e.Size)), 0); err != nil {
		return 0, err
	}
	return headerSize + e.Size + int64(len(line)) + 1, nil
}

// readMessage reads the envelope and all changes of a message's file that is length bytes long.
// end is where the next change belongs: behind it is nothing, or what can no more be read.
func readMessage(f io.ReaderAt, length int64) (e *Envelope, end int64, err error) {
	size, err := parseHeader(f)
	if err != nil {
		return nil, 0, err
	}
	if size > length-headerSize {
		return nil, 0, errors.New("its body is cut short")
	}
	end = headerSize + size
	lines := bufio.NewReader(io.NewSectionReader(f, end, length-end))
	line, err := lines.ReadBytes('\n')
	if err != nil {
		return nil, 0, fmt.Errorf("its envelope is cut short: %w", err)
	}
	e = new(Envelope)
	if err := json.Unmarshal(line, e); err != nil {
		return nil, 0, fmt.Errorf("its envelope: %w", err)
	}
	if err := e.check(); err != nil {
		return nil, 0, err
	}
	if e.Size != size {
		return nil, 0, fmt.Errorf("its body has %d bytes and should have %d", size, e.Size)
	}
	for {
		end += int64(len(line))
		line, err = lines.ReadBytes('\n')
		if err == io.EOF {
			return e, end, nil
		}
		if err != nil {
			return nil, 0, err
		}
		var changes map[int]Recipient
		if json.Unmarshal(line, &changes) != nil || e.change(changes) != nil {
			return e, end, nil
		}
	}
}
