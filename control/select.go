package control

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"relayd/address"
	"relayd/queue"
)

// A Filter limits which messages are meant: all that is set in it must hold. The zero Filter
// limits nothing.
type Filter struct {
	Domain string      `json:"domain,omitempty"` // of a recipient, or of an alias that has led to one
	Sender string      `json:"sender,omitempty"` // a whole address, a domain with or without @, or "<>"
	User   string      `json:"user,omitempty"`   // who has submitted it
	State  queue.State `json:"state,omitempty"`  // of a recipient: waiting or held
	Before time.Time   `json:"before,omitzero"`  // received before
	After  time.Time   `json:"after,omitzero"`   // received after
}

// A Selection names messages: by ID, by a filter, or all. Exactly one of the three must be given,
// since an empty one could be a mistake.
type Selection struct {
	IDs []string `json:"ids,omitempty"`
	All bool     `json:"all,omitempty"`
	Filter
}

// A match says which messages are meant.
type match struct {
	is func(*queue.Envelope) bool
	// domain is one that stands in the envelope of each of them, "" if none does: so that of a
	// million others only as much is read as it takes to see that it does not.
	domain string
}

// Check reports what is wrong with a filter.
func (f Filter) Check() error {
	_, err := f.compile()
	return err
}

// compile checks a filter and makes it ready for use.
func (f Filter) compile() (match, error) {
	var all []match
	domain := ""
	for _, part := range []func() (match, error){f.domain, f.sender, f.user, f.state, f.received} {
		m, err := part()
		if err != nil {
			return match{}, err
		}
		if m.is != nil {
			all = append(all, m)
			domain = cmp.Or(domain, m.domain)
		}
	}
	return match{domain: domain, is: func(e *queue.Envelope) bool {
		return !slices.ContainsFunc(all, func(m match) bool { return !m.is(e) })
	}}, nil
}

func (f Filter) domain() (match, error) {
	if f.Domain == "" {
		return match{}, nil
	}
	want, err := address.Domain(f.Domain)
	m := anyRecipient(func(r *queue.Recipient) bool { return r.Address.Domain == want || r.Alias.Domain == want })
	m.domain = want
	return m, err
}

func anyRecipient(is func(*queue.Recipient) bool) match {
	return match{is: func(e *queue.Envelope) bool {
		return slices.ContainsFunc(e.Recipients, func(r queue.Recipient) bool { return is(&r) })
	}}
}

func (f Filter) sender() (match, error) {
	switch {
	case f.Sender == "":
		return match{}, nil
	case f.Sender == "<>":
		return match{is: func(e *queue.Envelope) bool { return e.Sender.IsNull() }}, nil
	case strings.LastIndexByte(f.Sender, '@') > 0:
		want, err := address.Parse(f.Sender)
		return match{func(e *queue.Envelope) bool { return e.Sender.Key() == want.Key() }, want.Domain}, err
	}
	want, err := address.Domain(strings.TrimPrefix(f.Sender, "@"))
	return match{func(e *queue.Envelope) bool { return e.Sender.Domain == want }, want}, err
}

func (f Filter) user() (match, error) {
	if f.User == "" {
		return match{}, nil
	}
	want, err := address.Parse(f.User)
	return match{func(e *queue.Envelope) bool { return e.User.Key() == want.Key() }, want.Domain}, err
}

func (f Filter) state() (match, error) {
	switch f.State {
	case "":
		return match{}, nil
	case queue.Waiting, queue.Held:
		return anyRecipient(func(r *queue.Recipient) bool { return r.State == f.State }), nil
	}
	return match{}, fmt.Errorf("a message is waiting or held, not %.40q", string(f.State))
}

func (f Filter) received() (match, error) {
	switch {
	case f.Before.IsZero() && f.After.IsZero():
		return match{}, nil
	case !f.Before.IsZero() && !f.After.Before(f.Before):
		return match{}, errors.New("no message is older and younger than that at once")
	}
	return match{is: func(e *queue.Envelope) bool {
		return (f.Before.IsZero() || e.Received.Before(f.Before)) && e.Received.After(f.After)
	}}, nil
}

// compile checks a selection and returns what it selects of the queue, unless it names IDs.
func (sel Selection) compile() (match, error) {
	given := 0
	for _, g := range []bool{len(sel.IDs) > 0, sel.Filter != Filter{}, sel.All} {
		if g {
			given++
		}
	}
	if given != 1 {
		return match{}, errors.New("name the messages: IDs, or a filter, or all")
	}
	for _, id := range sel.IDs {
		if err := CheckID(id); err != nil {
			return match{}, err
		}
	}
	return sel.Filter.compile()
}

// CheckID lets through what can be a queue ID: nothing else comes near a file name.
func CheckID(id string) error {
	if len(id) < 8 || len(id) > 32 || strings.ContainsFunc(id, notOfID) {
		return fmt.Errorf("%.40q is not a queue ID: that is 8 to 32 letters and digits", id)
	}
	return nil
}

func notOfID(c rune) bool {
	return (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
}

// maxBody bounds a request, in bytes: a selection of some 30,000 IDs.
const maxBody = 1 << 20

// decode reads the JSON in a request's body to its end: only then is it noticed that a client has
// gone.
func decode(w http.ResponseWriter, r *http.Request, into any) error {
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields() // a limit that we do not know would select more than is meant
	err := dec.Decode(into)
	if err == nil {
		if _, more := dec.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("something follows it")
		}
	}
	if err != nil {
		return fmt.Errorf("the request cannot be read: %w", err)
	}
	return nil
}
