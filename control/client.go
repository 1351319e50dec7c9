package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"relayd/problem"
	"relayd/queue"
)

// ErrNotRunning says that no daemon answers on the socket.
var ErrNotRunning = errors.New("relayd is not running")

// ErrDamaged says that a message is not stored as it was taken.
var ErrDamaged = errors.New("the message is damaged")

// A Client asks a running daemon. It is safe for concurrent use.
type Client struct {
	socket string
	http   *http.Client
	wait   time.Duration // for a sign of life; 0: for ever
}

// patience is how long relayd may be silent while it is waited for. It gives signs of life while
// it works, so this is the time for a single step, such as a sync of a slow disk.
const patience = 30 * time.Second

var errSilent = fmt.Errorf("relayd is silent since %v: is the machine overloaded, or its disk?", patience)

// NewClient makes a client for the daemon behind a socket. It connects when it is asked something.
func NewClient(socket string) *Client {
	return &Client{socket: socket, wait: patience, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}
}

// Status asks for the daemon's status.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.do(ctx, "GET", "/status", nil, &s)
}

// Reload has the daemon read its files now, and returns what is wrong with them.
func (c *Client) Reload(ctx context.Context) (problems problem.List, err error) {
	return problems, c.do(ctx, "POST", "/reload", nil, &problems)
}

// List calls yield for each message of a filter as it arrives, oldest first, until it returns
// false or limit messages have come; a limit of 0 is none.
func (c *Client) List(ctx context.Context, f Filter, limit int, yield func(Message) bool) error {
	return each(ctx, c, "/queue/list", listing{f, limit}, yield)
}

// Count counts the messages of a filter.
func (c *Client) Count(ctx context.Context, f Filter) (n int, err error) {
	return n, each(ctx, c, "/queue/count", f, func(count int) bool { n = count; return true })
}

// Groups asks for the groups that need attention most, limit at most; a negative limit is none.
func (c *Client) Groups(ctx context.Context, limit int) (list []Group, err error) {
	return list, c.do(ctx, "GET", "/queue/groups?limit="+strconv.Itoa(limit), nil, &list)
}

// Destinations asks for all groups that mail waits for, or that were sent to of late, by name.
func (c *Client) Destinations(ctx context.Context) (list []Destination, err error) {
	return list, c.do(ctx, "GET", "/destinations", nil, &list)
}

// Show asks for one message. It returns queue.ErrNotFound if there is none.
func (c *Client) Show(ctx context.Context, id string) (d Detail, err error) {
	return d, c.do(ctx, "GET", messagePath(id), nil, &d)
}

func messagePath(id string) string { return "/queue/messages/" + url.PathEscape(id) }

// Export writes the bytes of a message as they are stored. It returns queue.ErrNotFound if there
// is none, and ErrDamaged, with nothing written, if it is not whole. Another error may come in the
// midst of it.
func (c *Client) Export(ctx context.Context, id string, w io.Writer) error {
	body, err := c.open(ctx, "GET", messagePath(id)+"/eml", nil)
	if err != nil {
		return err
	}
	defer body.Close()
	if _, err := io.Copy(w, body); errors.Is(err, io.ErrUnexpectedEOF) {
		return brokenOff(err)
	} else if err != nil {
		return err
	}
	return nil
}

// Change is ChangeEach for a selection that is not long: it returns the IDs of what was changed,
// and an error if something was not; there can be both.
func (c *Client) Change(ctx context.Context, verb string, sel Selection) (ids []string, err error) {
	var failed []error
	err = c.ChangeEach(ctx, verb, sel, func(m Changed) bool {
		if m.Error == "" {
			ids = append(ids, m.ID)
		} else {
			failed = append(failed, fmt.Errorf("%s: %s", m.ID, m.Error))
		}
		return true
	})
	return ids, errors.Join(append(failed, err)...)
}

// ChangeEach does a verb (retry, hold, release or remove) to a selection, and calls yield with what it
// came to for each message, until that returns false. When ctx ends, relayd stops after the
// message that it is at; what it has done by then is not all told.
func (c *Client) ChangeEach(ctx context.Context, verb string, sel Selection, yield func(Changed) bool) error {
	return each(ctx, c, "/queue/"+verb, sel, yield)
}

// Check has everything in the queue read and compared with its sums. progress is told how much is
// done, in bytes. It takes as long as it takes: only ctx ends it.
func (c *Client) Check(ctx context.Context, progress func(done, total int64)) (*queue.Report, error) {
	lasting := &Client{socket: c.socket, http: c.http}
	var last checkStep
	err := each(ctx, lasting, "/queue/check", struct{}{}, func(step checkStep) bool {
		last = step
		progress(step.Done, step.Total)
		return true
	})
	switch {
	case err != nil:
		return nil, err
	case last.Error != "":
		return nil, errors.New(last.Error)
	case last.Report == nil:
		return nil, brokenOff(io.ErrUnexpectedEOF)
	}
	return last.Report, nil
}

// each asks for an array and calls yield for its elements as they arrive, until it returns false.
// An array without its end is an error.
func each[T any](ctx context.Context, c *Client, path string, in any, yield func(T) bool) error {
	body, err := c.open(ctx, "POST", path, in)
	if err != nil {
		return err
	}
	return elements(body, yield)
}

// elements is each for an answer that has come; it closes it.
func elements[T any](body io.ReadCloser, yield func(T) bool) error {
	defer body.Close()
	dec := json.NewDecoder(body)
	if _, err := dec.Token(); err != nil {
		return brokenOff(err)
	}
	for dec.More() {
		var v T
		if err := dec.Decode(&v); err != nil {
			return brokenOff(err)
		}
		if !yield(v) {
			return nil
		}
	}
	if _, err := dec.Token(); err != nil {
		return brokenOff(err)
	}
	return nil
}

func brokenOff(err error) error {
	if errors.Is(err, errSilent) {
		return err
	}
	return fmt.Errorf("the answer of relayd broke off: %w", err)
}

func (c *Client) do(ctx context.Context, method, path string, in, out any) error {
	body, err := c.open(ctx, method, path, in)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(out); err != nil {
		return brokenOff(err)
	}
	return nil
}

func (c *Client) open(ctx context.Context, method, path string, in any) (io.ReadCloser, error) {
	var body bytes.Buffer
	if in != nil {
		if err := json.NewEncoder(&body).Encode(in); err != nil {
			return nil, err
		}
	}
	return c.request(ctx, method, path, &body)
}

// request is open for a body of any kind.
func (c *Client) request(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	ctx, w := watchOver(ctx, c.wait)
	req, err := http.NewRequestWithContext(ctx, method, "http://relayd"+path, body)
	if err != nil {
		w.end(nil)
		return nil, err
	}
	w.begin()
	resp, err := c.http.Do(req)
	w.rest()
	if err != nil {
		defer w.end(nil)
		return nil, c.explain(w.cause(err))
	}
	w.ReadCloser = resp.Body
	if resp.StatusCode != http.StatusOK {
		defer w.Close()
		return nil, refusal(resp, w)
	}
	return w, nil
}

// explain makes of an error of the socket one that says what can be done.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w (nothing answers on %s)", ErrNotRunning, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("you may not talk to relayd: %s belongs to others, try sudo", c.socket)
	}
	return err
}

// refusal is the error that relayd answers with.
func refusal(resp *http.Response, body io.Reader) error {
	line, _ := io.ReadAll(io.LimitReader(body, 1000))
	text := string(bytes.TrimSpace(line))
	damage, damaged := strings.CutPrefix(text, ErrDamaged.Error()+": ")
	switch {
	case text == "":
		return errors.New("relayd answers " + resp.Status)
	case text == queue.ErrNotFound.Error():
		return queue.ErrNotFound
	case damaged:
		return fmt.Errorf("%w: %s", ErrDamaged, damage)
	}
	return errors.New(text)
}
