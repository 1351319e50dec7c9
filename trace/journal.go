package trace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Journal reads the log of relayd's unit since a time from systemd's journal. Whoever closes it is told
// then whether that could be read.
func Journal(ctx context.Context, since time.Time) (io.ReadCloser, error) {
	cmd := exec.CommandContext(ctx, "journalctl", "--unit=relayd", "--output=short-unix", "--no-pager", "--quiet", "--since="+since.Local().Format("2006-01-02 15:04:05"))
	said := &bytes.Buffer{}
	cmd.Stderr = said
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("there is no journal here: say where the log is with --log FILE, or --log - for standard input")
	} else if err != nil {
		return nil, err
	}
	return &journalReader{out, cmd, said}, nil
}

// A journalReader is what journalctl writes. Close waits for its end.
type journalReader struct {
	io.ReadCloser
	cmd  *exec.Cmd
	said *bytes.Buffer
}

func (r *journalReader) Close() error {
	r.ReadCloser.Close() // where it has not been read to its end, so that journalctl ends
	if err := r.cmd.Wait(); err != nil {
		return fmt.Errorf("journalctl: %w: %s", err, strings.TrimSpace(r.said.String()))
	}
	return nil
}

// Spool keeps what can be read only once, and Find reads twice, in a file without a name.
func Spool(in io.Reader) (*os.File, error) {
	f, err := os.CreateTemp("", "relay-util-")
	if err != nil {
		return nil, err
	}
	if _, err = io.Copy(f, in); err == nil {
		err = os.Remove(f.Name())
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("keeping the log: %w", err)
	}
	return f, nil
}
