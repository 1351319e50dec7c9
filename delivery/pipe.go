package delivery

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"relayd/reply"
)

// Pipe hands a message to a program on its standard input, as aliases of the form "|program
// argument" ask. The program is run directly, without a shell, in an empty environment but for
// PATH, SENDER and RECIPIENT. Its exit status says what became of the message: 0 delivered (also
// if not all of it was read), 75 (EX_TEMPFAIL) try again, as when it cannot be run, is ended by a
// signal or takes more than 10 minutes; anything else refused.
//
// What the program complains about on standard error is in the cause of the reply, up to 1 KiB.
func Pipe(ctx context.Context, argv []string, m *Message) Result {
	return piper{time: 10 * time.Minute, wait: 10 * time.Second}.run(ctx, argv, m)
}

// A piper knows how long a program may take.
type piper struct {
	time time.Duration // over one message
	wait time.Duration // after its end, for those who still hold its standard error
}

func (p piper) run(ctx context.Context, argv []string, m *Message) Result {
	ctx, cancel := context.WithTimeout(ctx, p.time)
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
	cmd.WaitDelay = p.wait
	// What it started goes down with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	err = cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) && cmd.ProcessState.Success() {
		err = nil // it left somebody behind to work on, and is content
	}
	return Result{Reply: verdict(ctx, argv[0], err, &output), Host: "|" + argv[0]}
}

// verdict is what the end of a program means.
func verdict(ctx context.Context, program string, err error, output *limitedBuffer) *reply.Reply {
	exit, exited := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return reply.New(250, "2.0.0", "Taken by %s", program)
	case ctx.Err() != nil, !exited, exit.ExitCode() == 75, exit.ExitCode() < 0:
		return reply.New(451, "4.3.0", "The program for this address does not take mail now").Because(errors.Join(err, output.err()))
	}
	return reply.New(554, "5.3.0", "The program for this address refused the message").Because(errors.Join(err, output.err()))
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
