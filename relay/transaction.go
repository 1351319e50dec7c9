package relay

import (
	"crypto/tls"
	"net/netip"
	"strings"
	"time"

	"relayd/address"
	"relayd/domains"
	"relayd/filter"
	"relayd/mailauth"
	"relayd/queue"
)

// A Client is who is at the other end of a session, as known when it was asked for.
type Client struct {
	IP         netip.Addr
	Helo       string // as it was said, unchecked
	TLS        *tls.ConnectionState
	User       address.Address // zero when not logged in
	Submission bool            // it came to a port where users submit
	Local      bool            // it is a program of this machine, and there is no session
	// Rule, if it is not nil, says in place of the domain's sender_policy whether User may use an
	// address of a hosted domain: nil, or the refusal.
	Rule func(as address.Address) error
}

// A Transaction is one envelope on its way in (RFC 5321 section 3.3).
type Transaction struct {
	ID         string // the queue ID that a message taken by it will have
	Client     *Client
	Sender     address.Address // reverse-path; zero is "<>"
	Size       int64           // as declared, in bytes; 0 when it was not
	UTF8       bool            // SMTPUTF8 was asked for
	RequireTLS bool            // REQUIRETLS was asked for, under TLS
	Return     string          // DSN RET: "", "FULL" or "HDRS"
	EnvelopeID string          // DSN ENVID, decoded
	world      *domains.Set    // the hosted domains as they were when it began
	accepted   []accepted
	verdict    *mailauth.Verdict // of a stranger's message; nil where it was not checked
	checking   time.Duration     // how long that took
	looked     bool              // listing is known
	listing    *filter.Listing   // of the client in a DNS list; nil if there is none
	source     string            // of a stranger's message, as the filters remember it
	said       []any             // by the filters, for the log
}

// A Recipient is what RCPT says.
type Recipient struct {
	Address  address.Address
	Original string   // DSN ORCPT as "RFC822;address", decoded; "" when not given
	Notify   []string // DSN NOTIFY: NEVER, or some of SUCCESS FAILURE DELAY
}

// NewTransaction opens a transaction under a new ID.
func NewTransaction(c *Client) *Transaction {
	return &Transaction{ID: queue.NewID(time.Now()), Client: c}
}

// LogAttrs are what every log line about the transaction says.
func (tx *Transaction) LogAttrs() []any {
	client := tx.Client.IP.String()
	if tx.Client.Local {
		client = "local"
	}
	attrs := []any{"id", tx.ID, "client", client, "from", "<" + tx.Sender.String() + ">"}
	if !tx.Client.User.IsNull() {
		attrs = append(attrs, "user", tx.Client.User.String())
	}
	if len(tx.accepted) > 0 {
		attrs = append(attrs, "to", quoted(tx.addresses()))
	}
	return append(attrs, tx.authAttrs()...)
}

// protocol is the word for Received's "with" (RFC 3848, RFC 6531 section 4.3).
func (tx *Transaction) protocol() string {
	if tx.Client.Local {
		return "local"
	}
	p := "ESMTP"
	if tx.UTF8 {
		p = "UTF8SMTP"
	}
	if tx.Client.TLS != nil {
		p += "S"
	}
	if !tx.Client.User.IsNull() {
		p += "A"
	}
	return p
}

// quoted lists addresses for a sentence.
func quoted(list []address.Address) string {
	s := make([]string, len(list))
	for i, a := range list {
		s[i] = "<" + a.String() + ">"
	}
	return strings.Join(s, ", ")
}
