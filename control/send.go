package control

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"time"

	"relayd/follow"
)

// A Sending is the envelope of a message that the admin submits.
type Sending struct {
	From string   // of a hosted domain
	To   []string // one at least
}

// A Sent is a message that was taken and is followed.
type Sent struct {
	Queued follow.Event        // its first step
	Events <-chan follow.Event // the others
	Stop   func()              // ends the following
}

// send takes a message, and streams what becomes of it until that is known for every recipient or the
// client goes.
func (s *Server) send(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	sent, err := s.daemon.Send(r.Context(), Sending{From: query.Get("from"), To: query["to"]}, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
		return
	}
	defer sent.Stop()
	out := newStream(w)
	if !out.put(sent.Queued) || out.flush() != nil {
		return
	}
	life := time.NewTicker(signOfLife)
	defer life.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-life.C:
			out.breathe()
		case e := <-sent.Events:
			if !out.put(e) || out.flush() != nil {
				return
			}
			if e.What.IsOutcome() && e.Left == 0 {
				out.end()
				return
			}
		}
	}
}

// Send submits a message in the name of its sender, without a password, and calls yield for each step
// of it until that returns false, ctx ends, or no recipient is left to be waited for. What is sent goes
// on its way all the same.
func (c *Client) Send(ctx context.Context, env Sending, msg io.Reader, yield func(follow.Event) bool) error {
	query := url.Values{"from": {env.From}, "to": env.To}
	body, err := c.request(ctx, "POST", "/send?"+query.Encode(), msg)
	if err != nil {
		return err
	}
	return elements(body, yield)
}
