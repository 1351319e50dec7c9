package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
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
	s.http = http.Server{
		Handler: mux, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute,
	}
	return s
}

// Listen makes the socket, in place of one that a daemon which is gone has left. It is an error
// if another daemon answers on it.
func Listen(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, errors.New("another relayd is running: it answers on " + path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
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

func (s *Server) status(w http.ResponseWriter, _ *http.Request) { answer(w, s.daemon.Status()) }

func (s *Server) reload(w http.ResponseWriter, _ *http.Request) {
	problems := s.daemon.Reload()
	if problems == nil {
		problems = problem.List{}
	}
	answer(w, problems)
}

// list streams an array, so that a long queue is shown from its first message on.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, "[")
	enc, sep := json.NewEncoder(w), ""
	s.queue.List(func(e *queue.Envelope) bool {
		if !matches(e, Selection{Domain: r.FormValue("domain")}) {
			return true
		}
		io.WriteString(w, sep)
		sep = ","
		return enc.Encode(newMessage(e)) == nil
	})
	io.WriteString(w, "]\n")
}

func (s *Server) show(w http.ResponseWriter, r *http.Request) {
	e, err := s.queue.Get(r.PathValue("id"))
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

// change does f to every message of the selection in the request's body.
func (s *Server) change(f func(id string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var sel Selection
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&sel); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		ids := sel.IDs
		if len(ids) == 0 {
			s.queue.List(func(e *queue.Envelope) bool {
				if matches(e, sel) {
					ids = append(ids, e.ID)
				}
				return true
			})
		}
		done := Changed{IDs: []string{}}
		for _, id := range ids {
			err := f(id)
			if err != nil && len(sel.IDs) > 0 {
				http.Error(w, id+": "+err.Error(), http.StatusNotFound)
				return
			}
			if err == nil {
				done.IDs = append(done.IDs, id)
			}
		}
		answer(w, done)
	}
}

// matches reports whether e is selected: one without a domain selects all.
func matches(e *queue.Envelope, sel Selection) bool {
	if sel.Domain == "" {
		return true
	}
	want, err := address.Domain(sel.Domain)
	if err != nil {
		return false
	}
	for _, r := range e.Recipients {
		if r.Address.Domain == want || r.Alias.Domain == want {
			return true
		}
	}
	return false
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}
