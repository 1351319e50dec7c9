package relay

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"relayd/address"
	"relayd/bans"
	"relayd/reply"
	"relayd/users"
)

// Login checks a user's password. Unknown, disabled and wrong are one answer, and take as long. A
// source that has guessed too much is refused before anything is checked. With an error it returns the
// address that was tried, of a user who need not exist; the zero Address for a name that is none of a
// hosted domain. Such a name may be a password in the wrong field, so nothing keeps or shows it.
func (in *Inbound) Login(ctx context.Context, c *Client, name, password string) (address.Address, error) {
	user, err := address.Parse(name)
	d := in.Domains().Get(user.Domain)
	if err != nil || d == nil {
		user, d = address.Address{}, nil
	}
	var table *users.Table
	if d != nil {
		if d.Users == nil {
			return user, reply.New(454, "4.7.0", "Logins of this domain cannot be checked at the moment").Because(d.Broken.Err())
		}
		table = d.Users
	}
	account := user.Key()
	known, err := in.Bans.Admit(ctx, c.IP, account)
	if err != nil {
		return user, in.notAdmitted(err)
	}
	ok, err := in.Verifier.Verify(ctx, users.Login{
		Table: table, User: user, Password: password, Source: bans.Source(c.IP), Known: known,
		Still: func() error { return in.Bans.Check(c.IP, account) },
	})
	switch {
	case errors.Is(err, users.ErrBusy):
		return user, reply.New(454, "4.7.0", "Too many logins at the moment, please try again").Because(err)
	case err != nil:
		return user, in.notAdmitted(err)
	case !ok:
		in.Bans.Failed(c.IP, account)
		return user, reply.New(535, "5.7.8", "User name or password is wrong (the user name is the whole address)")
	}
	in.Bans.Succeeded(c.IP, account)
	in.Log.Debug("logged in", "user", user.String(), "client", c.IP.String())
	return address.Address{Local: strings.ToLower(user.Local), Domain: user.Domain}, nil
}

// notAdmitted is the answer to a login that is not looked at.
func (in *Inbound) notAdmitted(err error) *reply.Reply {
	if banned, ok := errors.AsType[*bans.Refusal](err); ok {
		return reply.New(421, "4.7.0", "Too many wrong passwords from %s: no logins are taken from there until %s, which is in %s",
			bans.Name(banned.Source), banned.Until.UTC().Format("2 January 15:04:05 UTC"), inWords(banned.Until.Sub(in.Now()))).Because(err)
	}
	return reply.New(454, "4.7.0", "Somebody tries many passwords, so logins are slow at the moment: please try again in a minute").Because(err)
}

// inWords rounds a duration up to what a person would say.
func inWords(d time.Duration) string {
	n, unit := (d+time.Second-1)/time.Second, "second"
	switch {
	case d > 2*time.Hour:
		n, unit = (d+time.Hour-1)/time.Hour, "hour"
	case d > 2*time.Minute:
		n, unit = (d+time.Minute-1)/time.Minute, "minute"
	}
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}
