package sendmail

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"

	"relayd/message"
)

// ErrOff says that the relay takes no mail of local users.
var ErrOff = errors.New("mail of local users is not taken: set domain under [sendmail] in relayd.toml and start relayd")

// Dropped is the answer where the relay is down and the message lies in the drop folder.
var Dropped = Answer{250, "2.0.0", "Ok: relayd takes it when it is up"}

// HandOver gives a message to the relay with that state folder, or leaves it in the drop folder if the
// relay is down or busy. After an Answer of 250 the relay or the disk has it; another says why not. An error
// is that nothing could be reached or written; ErrOff is one. Where the connection is lost, the message goes
// into the drop folder whatever the relay has done with it: twice is better than never.
func HandOver(ctx context.Context, stateDir string, req *Request, m *message.Message) (Answer, error) {
	answer, err := submit(ctx, socketIn(stateDir), req, m.Reader())
	switch {
	case err == nil && answer.Code != busy:
		return answer, nil
	case ctx.Err() != nil:
		return Answer{}, ctx.Err()
	}
	switch err := drop(dropIn(stateDir), req, m.Reader()); {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return Answer{}, ErrOff
	case err != nil:
		return Answer{}, fmt.Errorf("leaving the message in the drop folder: %w", err)
	}
	return Dropped, nil
}

// submit goes through the socket.
func submit(ctx context.Context, socket string, req *Request, msg io.Reader) (Answer, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return Answer{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	conn.SetDeadline(time.Now().Add(messageTime + time.Minute))
	line, err := req.line()
	if err != nil {
		return Answer{}, err
	}
	in := bufio.NewReader(conn)
	_, err = conn.Write(line)
	if answer, heard := hear(in); heard != nil || answer.Code != goOn {
		return answer, errors.Join(heard, onlyIf(heard != nil, err))
	}
	_, err = io.Copy(conn, msg)
	answer, heard := hear(in)
	return answer, errors.Join(heard, onlyIf(heard != nil, err))
}

// onlyIf is err where that matters: an answer says more than that the relay has stopped to listen.
func onlyIf(matters bool, err error) error {
	if matters {
		return err
	}
	return nil
}

func hear(in *bufio.Reader) (a Answer, err error) {
	line, err := readLine(in, 10_000)
	if err != nil {
		return a, fmt.Errorf("the relay does not answer: %w", err)
	}
	return a, json.Unmarshal(line, &a)
}
