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
	"strings"
	"syscall"

	"relayd/problem"
)

// ErrNotRunning says that no daemon answers on the socket.
var ErrNotRunning = errors.New("relayd is not running")

// A Client asks a running daemon. It is safe for concurrent use.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client for the daemon behind a socket. It connects when it is asked something.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	return c
}

// Status asks for the daemon's status.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.do(ctx, "GET", "/status", nil, &s)
}

// Reload has the daemon read its files now, and returns what is wrong with them.
func (c *Client) Reload(ctx context.Context) (problems problem.List, err error) {
	return problems, c.do(ctx, "POST", "/reload", nil, &problems)
}

// List calls yield for each message as it arrives, oldest first, until it returns false. domain
// limits the list to messages for it; "" does not.
func (c *Client) List(ctx context.Context, domain string, yield func(Message) bool) error {
	body, err := c.open(ctx, "GET", "/queue?domain="+url.QueryEscape(domain), nil)
	if err != nil {
		return err
	}
	defer body.Close()
	dec := json.NewDecoder(body)
	if _, err := dec.Token(); err != nil {
		return brokenOff(err)
	}
	for dec.More() {
		var m Message
		if err := dec.Decode(&m); err != nil {
			return brokenOff(err)
		}
		if !yield(m) {
			return nil
		}
	}
	if _, err := dec.Token(); err != nil { // without its end the list is not all there is
		return brokenOff(err)
	}
	return nil
}

func brokenOff(err error) error { return fmt.Errorf("the answer of relayd broke off: %w", err) }

// Show asks for one message.
func (c *Client) Show(ctx context.Context, id string) (d Detail, err error) {
	return d, c.do(ctx, "GET", "/queue/"+url.PathEscape(id), nil, &d)
}

// Change does a verb (retry, hold, release or remove) to a selection. It returns the IDs of what
// was changed, and an error if something was not; there can be both.
func (c *Client) Change(ctx context.Context, verb string, sel Selection) (ids []string, err error) {
	var done Changed
	err = c.do(ctx, "POST", "/queue/"+verb, sel, &done)
	if err == nil && len(done.Failed) > 0 {
		err = errors.New(strings.Join(done.Failed, "\n"))
	}
	return done.IDs, err
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
	req, err := http.NewRequestWithContext(ctx, method, "http://relayd"+path, &body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w (nothing answers on %s)", ErrNotRunning, c.socket)
	}
	if errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("you may not talk to relayd: %s belongs to others, try sudo", c.socket)
	}
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		if text = bytes.TrimSpace(text); len(text) == 0 {
			text = []byte("relayd answers " + resp.Status)
		}
		return nil, errors.New(string(text))
	}
	return resp.Body, nil
}
