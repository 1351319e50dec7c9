package filter

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"relayd/message"
	"relayd/reply"
)

const (
	// rspamdTime is how long rspamd has for a message, with the wait until there is a slot.
	rspamdTime = 10 * time.Second
	// maxAnswer bounds what is read of its answer, in bytes.
	maxAnswer = 1 << 20
)

// An rspamd is the worker that scans messages: the normal one, or a proxy before it.
type rspamd struct {
	name     string
	url      string
	password string
	hostname string
	client   *http.Client
	slots    chan struct{} // holds a token for each message under way
}

func newRspamd(opt Options) *rspamd {
	// A proxy of the environment's is not used. A connection is not used again: where rspamd has just
	// closed it, the message would pass unseen.
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10}
	url := strings.TrimSuffix(opt.Rspamd, "/")
	if path, ok := strings.CutPrefix(opt.Rspamd, "unix:"); ok {
		url = "http://rspamd"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
	}
	return &rspamd{
		name: "rspamd", url: url + "/checkv2", password: opt.Password, hostname: opt.Hostname, slots: make(chan struct{}, maxAtOnce),
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// check has a message scanned as it came, without a field of ours: what it came with stands beside
// it, as a mail server with a milter does it.
func (r *rspamd) check(ctx context.Context, m *Message) (score, error) {
	ctx, cancel := context.WithTimeout(ctx, rspamdTime)
	defer cancel()
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return score{}, fmt.Errorf("it has %d messages at once, and none is done", maxAtOnce)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, io.NopCloser(m.Open()))
	if err != nil {
		return score{}, err
	}
	req.ContentLength = m.Size
	r.describe(m, req.Header)
	resp, err := r.client.Do(req)
	if err != nil {
		return score{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return score{}, err
	case resp.StatusCode != http.StatusOK:
		return score{}, fmt.Errorf("it answers %s", resp.Status)
	}
	return parseScore(text)
}

// describe is the envelope in the header of a request. What a client said must not make a header
// that cannot be sent, for then its mail would pass unseen.
func (r *rspamd) describe(m *Message, h http.Header) {
	h.Set("Queue-Id", m.ID)
	h.Set("IP", m.IP.WithZone("").String())
	h.Set("Helo", message.Token(m.Helo))
	h.Set("From", "<"+m.Sender.String()+">")
	for _, to := range m.Recipients {
		h.Add("Rcpt", "<"+to.String()+">")
	}
	h.Set("MTA-Name", r.hostname)
	if m.Name != "" {
		h.Set("Hostname", m.Name)
	}
	if r.password != "" {
		h.Set("Password", r.password)
	}
}

// A score is what rspamd makes of a message.
type score struct {
	Action string  `json:"action"`
	Score  float64 `json:"score"`
}

// parseScore reads the answer of /checkv2.
func parseScore(text []byte) (score, error) {
	var s score
	if len(text) > maxAnswer {
		return s, fmt.Errorf("its answer is larger than %d bytes", maxAnswer)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return score{}, fmt.Errorf("its answer is none of rspamd's: %w", err)
	}
	if s.Action = clean(s.Action, 40); s.Action == "" {
		return score{}, errors.New("its answer names no action")
	}
	return s, nil
}

// refusal is what an action comes to: nil where the message passes, as it does with actions that
// nobody here knows. Where strict is set, what would be marked as spam is refused.
func (s score) refusal(strict bool) error {
	switch s.Action {
	case "reject":
		return errSpam
	case "add header", "rewrite subject":
		if strict {
			return errSpam
		}
	case "greylist", "soft reject":
		return errAgain
	}
	return nil
}

var (
	errSpam  = reply.New(550, "5.7.1", "The message looks like spam, so it is not taken here: if it is none, please reach the recipient in another way")
	errAgain = reply.New(451, "4.7.1", "Please try again in some minutes: then the message may be taken")
)
