package relay

import (
	"encoding/json"
	"time"

	"relayd/delivery"
	"relayd/filter"
)

// Groups are what the queue knows of groups that are paused; *queue.Queue is one.
type Groups interface {
	Paused() map[string]time.Time
	Pause(groups map[string]time.Time)
}

// state is what was learned of and from destinations and is to be known after a restart. All of it is over
// within a day, and bounded where it is learned.
type state struct {
	Paused    map[string]time.Time            `json:"paused"` // groups
	IPv6      map[string]delivery.IPv6Refusal `json:"ipv6"`   // by registrable domain
	Mailboxes map[string]slowed               `json:"mailboxes"`
	Suspects  map[string]filter.Suspect       `json:"suspects,omitempty"` // sources of mail
}

// State is what was learned of destinations, as Restore reads it. It is the same bytes as long as
// nothing is learned.
func (out *Outbound) State(q Groups) ([]byte, error) {
	return json.Marshal(state{q.Paused(), out.client.IPv6Refusals(), out.paces.slowed(out.Now()), out.Filter.Suspects()})
}

// Restore takes up what State has told before a restart, as far as it is still in force. An error
// says that data is damaged; then nothing is taken up.
func (out *Outbound) Restore(q Groups, data []byte) error {
	var s state
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	q.Pause(s.Paused)
	out.client.RestoreIPv6Refusals(s.IPv6)
	out.paces.restore(s.Mailboxes, out.Now())
	out.Filter.RestoreSuspects(s.Suspects)
	return nil
}
