package delivery

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"time"

	"relayd/reply"
)

// pipeTime is how long a program may take over one message.
const pipeTime = 10 * time.Minute

// Pipe hands a message to a program on its standard input, as aliases of the form "|program
// argument" ask. The program is run directly, without a shell, in an empty environment but for
// PATH, SENDER and RECIPIENT. Its exit status says what became of the message: 0 delivered, 75
// (EX_TEMPFAIL) try again, anything else refused.
func Pipe(ctx context.Context, argv []string, m *Message) Result {
	ctx, cancel := context.WithTimeout(ctx, pipeTime)
	defer cancel()
	body, err := m.Body()
	if err != nil {
		return Result{Reply: reply.Internal(err)}
	}
	defer body.Close()
	var output limitedBuffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "SENDER=" + m.ReturnPath.String(), "RECIPIENT=" + m.Recipients[0].Address.String()}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = body, io.Discard, &output
	cmd.WaitDelay = 10 * time.Second
	err = cmd.Run()
	r := Result{Host: "|" + argv[0]}
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		r.Reply = reply.New(250, "2.0.0", "Taken by %s", argv[0])
	case ctx.Err() != nil, !exited, exit.ExitCode() == 75, exit.ExitCode() < 0:
		r.Reply = reply.New(451, "4.3.0", "The program for this address does not take mail now").Because(errors.Join(err, output.err()))
	default:
		r.Reply = reply.New(554, "5.3.0", "The program for this address refused the message").Because(errors.Join(err, output.err()))
	}
	return r
}

// limitedBuffer keeps the first kilobyte of what a program complains about.
type limitedBuffer struct{ b bytes.Buffer }

func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), 1024-l.b.Len())])
	return len(p), nil
}

func (l *limitedBuffer) err() error {
	if l.b.Len() == 0 {
		return nil
	}
	return errors.New(strings.TrimSpace(l.b.String()))
}
