package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"relayd/message"
	"relayd/queue"
)

// A Queue is what the queue verbs work on; *queue.Queue is one.
type Queue interface {
	Search(text string, yield func(*queue.Envelope) bool)
	Get(id string) (*queue.Envelope, error)
	Body(id string) (io.ReadCloser, error)
	Groups() []queue.GroupStatus
	Retry(id string) error
	Hold(id string) error
	Release(id string) error
	Remove(id string) error
}

// A listing is the request for a list.
type listing struct {
	Filter
	Limit int `json:"limit,omitempty"` // of messages; 0: none
}

// list streams messages, so that a long queue is shown from its first message on. It reads no
// further than the last of them.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	var ask listing
	selected, err := compiled(w, r, &ask)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out, n := newStream(w), 0
	whole := s.walk(r.Context(), out, selected, func(e *queue.Envelope) bool {
		n++
		return out.put(newMessage(e)) && n != ask.Limit
	})
	if whole {
		out.end()
	}
}

// count answers with an array of one number, before which signs of life can come.
func (s *Server) count(w http.ResponseWriter, r *http.Request) {
	var f Filter
	selected, err := compiled(w, r, &f)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out, n := newStream(w), 0
	if s.walk(r.Context(), out, selected, func(*queue.Envelope) bool { n++; return true }) {
		out.put(n)
		out.end()
	}
}

// compiled reads a request that says which messages are meant.
func compiled(w http.ResponseWriter, r *http.Request, ask interface{ compile() (match, error) }) (match, error) {
	if err := decode(w, r, ask); err != nil {
		return match{}, err
	}
	return ask.compile()
}

// walk calls f for each message that is selected, oldest first, until f returns false. It returns
// false if the client has gone meanwhile.
func (s *Server) walk(ctx context.Context, out *stream, selected match, f func(*queue.Envelope) bool) bool {
	s.queue.Search(selected.domain, func(e *queue.Envelope) bool {
		out.breathe()
		return ctx.Err() == nil && (!selected.is(e) || f(e))
	})
	return ctx.Err() == nil
}

// Changed is what a change came to for one message.
type Changed struct {
	ID    string `json:"id"`
	Error string `json:"error,omitempty"` // why it was not changed
}

// change does f to every message of the selection in the request's body, one after the other, and
// streams what it came to. One that cannot be changed does not keep the others from it. When the
// client goes, no further one is begun.
func (s *Server) change(f func(id string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var sel Selection
		selected, err := compiled(w, r, &sel)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		out := newStream(w)
		do := func(id string) bool {
			err := f(id)
			switch {
			case err == nil:
				return out.put(Changed{ID: id})
			case len(sel.IDs) > 0 || !isMoot(err):
				return out.put(Changed{ID: id, Error: err.Error()})
			}
			return true
		}
		for _, id := range sel.IDs {
			if r.Context().Err() != nil || !do(id) {
				return
			}
		}
		if len(sel.IDs) > 0 || s.walk(r.Context(), out, selected, func(e *queue.Envelope) bool { return do(e.ID) }) {
			out.end()
		}
	}
}

// isMoot reports whether err says that there is nothing to be done: that is worth telling of a
// message that was named, and not of one among all.
func isMoot(err error) bool {
	return errors.Is(err, queue.ErrNotFound) || errors.Is(err, queue.ErrHeld) || errors.Is(err, queue.ErrNotHeld)
}

// find gets the message that a request names. It answers itself if there is none.
func (s *Server) find(w http.ResponseWriter, r *http.Request) *queue.Envelope {
	id := r.PathValue("id")
	err := CheckID(id)
	if err == nil {
		var e *queue.Envelope
		if e, err = s.queue.Get(id); err == nil {
			return e
		}
	}
	http.Error(w, err.Error(), http.StatusNotFound)
	return nil
}

func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	e := s.find(w, r)
	if e == nil {
		return
	}
	d := newDetail(e)
	body, err := s.queue.Body(e.ID)
	if err == nil {
		defer body.Close()
		var h message.Header
		if h, err = message.ReadHeader(body); err == nil {
			d.Header = string(h.Raw())
		}
	}
	if err != nil {
		d.Unreadable = err.Error()
	}
	answer(w, d)
}

// export answers with the bytes of a message. They are read twice, for only at their end is it
// known that they are whole, and nobody is to get half a message.
func (s *Server) export(w http.ResponseWriter, r *http.Request) {
	e := s.find(w, r)
	if e == nil {
		return
	}
	n, err := s.copyBody(io.Discard, e.ID)
	switch {
	case errors.Is(err, queue.ErrNotFound):
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	case err == nil && n != e.Size:
		err = fmt.Errorf("it has %d bytes and should have %d", n, e.Size)
	}
	if err != nil {
		http.Error(w, ErrDamaged.Error()+": "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "message/rfc822")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	if _, err := s.copyBody(w, e.ID); err != nil {
		panic(http.ErrAbortHandler) // which is how a client learns of it now
	}
}

func (s *Server) copyBody(w io.Writer, id string) (int64, error) {
	body, err := s.queue.Body(id)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	return io.Copy(w, body)
}

// groups lists the groups, those with work that waits longest first, then the busiest; no more
// than limit, if there is one.
func (s *Server) groups(w http.ResponseWriter, r *http.Request) {
	list := s.queue.Groups()
	slices.SortFunc(list, func(a, b queue.GroupStatus) int {
		switch {
		case a.WaitingSince.IsZero() && !b.WaitingSince.IsZero():
			return 1
		case b.WaitingSince.IsZero() && !a.WaitingSince.IsZero():
			return -1
		}
		return cmp.Or(a.WaitingSince.Compare(b.WaitingSince), cmp.Compare(b.Used, a.Used), strings.Compare(a.Name, b.Name))
	})
	if limit, err := strconv.Atoi(r.FormValue("limit")); err == nil && limit >= 0 && limit < len(list) {
		list = list[:limit]
	}
	groups := make([]Group, len(list))
	for i, g := range list {
		groups[i] = Group(g)
	}
	answer(w, groups)
}

// A checkStep is how far a check has come; the last one has the report, or what has ended it.
type checkStep struct {
	Done   int64         `json:"done"` // bytes
	Total  int64         `json:"total"`
	Report *queue.Report `json:"report,omitempty"`
	Error  string        `json:"error,omitempty"`
}

func (s *Server) check(w http.ResponseWriter, r *http.Request) {
	if !s.checking.TryLock() {
		http.Error(w, "the queue is being checked already: wait until that has ended", http.StatusConflict)
		return
	}
	defer s.checking.Unlock()
	if err := decode(w, r, &struct{}{}); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out := newStream(w)
	var last checkStep
	report, err := s.daemon.CheckQueue(r.Context(), func(done, total int64) {
		last = checkStep{Done: done, Total: total}
		if out.due() {
			out.put(last)
		}
	})
	if last.Report = report; err != nil {
		last.Error = err.Error()
	}
	out.put(last)
	out.end()
}
