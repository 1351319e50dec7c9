package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"relayd/address"
	"relayd/message"
	"relayd/problem"
	"relayd/queue"
)

// A Daemon is what the socket controls.
type Daemon interface {
	Status() Status
	// Reload reads all edited files now and returns what is wrong with them.
	Reload() problem.List
}

// A Queue is what the queue verbs work on; *queue.Queue is one.
type Queue interface {
	List(yield func(*queue.Envelope) bool)
	Get(id string) (*queue.Envelope, error)
	Body(id string) (io.ReadCloser, error)
	Retry(id string) error
	Hold(id string) error
	Release(id string) error
	Remove(id string) error
}

// A Server answers on the socket.
type Server struct {
	daemon Daemon
	queue  Queue
	http   http.Server
}

// NewServer makes a Server; Serve starts it.
func NewServer(d Daemon, q Queue, log *slog.Logger) *Server {
	s := &Server{daemon: d, queue: q}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", s.status)
	mux.HandleFunc("POST /reload", s.reload)
	mux.HandleFunc("GET /queue", s.list)
	mux.HandleFunc("GET /queue/{id}", s.show)
	mux.HandleFunc("POST /queue/retry", s.change(q.Retry))
	mux.HandleFunc("POST /queue/hold", s.change(q.Hold))
	mux.HandleFunc("POST /queue/release", s.change(q.Release))
	mux.HandleFunc("POST /queue/remove", s.change(q.Remove))
	mux.HandleFunc("/", unknown)
	s.http = http.Server{
		Handler: mux, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
	}
	return s
}

// Serve answers on l until Close; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Close ends all connections and removes the socket.
func (s *Server) Close() error { return s.http.Close() }

// Shutdown lets requests that are under way end.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }

func unknown(w http.ResponseWriter, r *http.Request) {
	http.Error(w, "relayd does not know "+r.Method+" "+r.URL.Path+": are it and relay-util of the same version?", http.StatusNotFound)
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	st := s.daemon.Status()
	// A list is written as one even if nothing is in it.
	st.Listeners = append([]Listener{}, st.Listeners...)
	st.Domains = append([]DomainStatus{}, st.Domains...)
	st.Certs = append([]Certificate{}, st.Certs...)
	st.Problems = append(problem.List{}, st.Problems...)
	st.Warnings = append(problem.List{}, st.Warnings...)
	answer(w, st)
}

func (s *Server) reload(w http.ResponseWriter, _ *http.Request) {
	problems := s.daemon.Reload()
	if problems == nil {
		problems = problem.List{}
	}
	answer(w, problems)
}

// list streams an array, so that a long queue is shown from its first message on.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	sel := Selection{Domain: r.FormValue("domain")}
	sel.All = sel.Domain == ""
	selected, err := sel.compile()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, "[")
	enc, sep := json.NewEncoder(w), ""
	s.queue.List(func(e *queue.Envelope) bool {
		if !selected(e) {
			return true
		}
		io.WriteString(w, sep)
		sep = ","
		return enc.Encode(newMessage(e)) == nil
	})
	io.WriteString(w, "]\n")
}

func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	var e *queue.Envelope
	err := checkID(r.PathValue("id"))
	if err == nil {
		e, err = s.queue.Get(r.PathValue("id"))
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	d := Detail{Message: newMessage(e), User: e.User.String()}
	if body, err := s.queue.Body(e.ID); err == nil {
		defer body.Close()
		if h, err := message.ReadHeader(body); err == nil {
			d.Header = string(h.Raw())
		}
	}
	answer(w, d)
}

// maxBody bounds a request, in bytes: a selection of some 30,000 IDs.
const maxBody = 1 << 20

// change does f to every message of the selection in the request's body. One that cannot be
// changed does not keep the others from it.
func (s *Server) change(f func(id string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ids, named, err := s.selection(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		done := Changed{IDs: []string{}}
		for _, id := range ids {
			err := f(id)
			switch {
			case err == nil:
				done.IDs = append(done.IDs, id)
			case named || !isMoot(err):
				done.Failed = append(done.Failed, id+": "+err.Error())
			}
		}
		answer(w, done)
	}
}

// isMoot reports whether err says that there is nothing to be done: that is worth telling of a
// message that was named, and not of one among all.
func isMoot(err error) bool {
	return errors.Is(err, queue.ErrNotFound) || errors.Is(err, queue.ErrHeld) || errors.Is(err, queue.ErrNotHeld)
}

// selection reads which messages are meant, and whether each of them was named.
func (s *Server) selection(body io.Reader) (ids []string, named bool, err error) {
	var sel Selection
	dec := json.NewDecoder(body)
	dec.DisallowUnknownFields() // a limit that we do not know would select more than is meant
	if err := dec.Decode(&sel); err != nil {
		return nil, false, fmt.Errorf("the selection of messages cannot be read: %w", err)
	}
	selected, err := sel.compile()
	if err != nil || len(sel.IDs) > 0 {
		return sel.IDs, true, err
	}
	s.queue.List(func(e *queue.Envelope) bool {
		if selected(e) {
			ids = append(ids, e.ID)
		}
		return true
	})
	return ids, false, nil
}

// compile checks a selection and returns what it selects from the queue.
func (sel Selection) compile() (func(*queue.Envelope) bool, error) {
	given := 0
	for _, g := range []bool{len(sel.IDs) > 0, sel.Domain != "", sel.All} {
		if g {
			given++
		}
	}
	if given != 1 {
		return nil, errors.New("name the messages: IDs, or one domain, or all")
	}
	for _, id := range sel.IDs {
		if err := checkID(id); err != nil {
			return nil, err
		}
	}
	if sel.Domain == "" {
		return func(*queue.Envelope) bool { return sel.All }, nil
	}
	want, err := address.Domain(sel.Domain)
	if err != nil {
		return nil, err
	}
	return func(e *queue.Envelope) bool {
		return slices.ContainsFunc(e.Recipients, func(r queue.Recipient) bool {
			return r.Address.Domain == want || r.Alias.Domain == want
		})
	}, nil
}

// checkID lets through what can be a queue ID: nothing else comes near a file name.
func checkID(id string) error {
	if len(id) < 8 || len(id) > 32 || strings.ContainsFunc(id, notOfID) {
		return fmt.Errorf("%.40q is not a queue ID: that is 8 to 32 letters and digits", id)
	}
	return nil
}

func notOfID(c rune) bool {
	return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}
