package control

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"time"
)

// A Ban is in force against those who guess passwords.
type Ban struct {
	Kind string `json:"kind"` // "source": it may not log in; "account": others than it knows are slowed
	// Name is an IPv4 address or an IPv6 /64, or the address of an account, which need not exist.
	Name  string    `json:"name"`
	Until time.Time `json:"until"`
	Times int       `json:"times"` // how often it has come to that
}

// A BanSelection says which bans are meant: that of an IP address or an account, all of the accounts of
// a domain, or all. Exactly one of the two must be given where bans are lifted.
type BanSelection struct {
	Name string `json:"name,omitempty"`
	All  bool   `json:"all,omitempty"`
}

// Match reports whether a source or an account is meant.
func (s BanSelection) Match(source netip.Prefix, account string) bool {
	name := strings.ToLower(strings.TrimSpace(s.Name))
	if name == "" {
		return true
	}
	if account != "" {
		return account == name || strings.HasSuffix(account, "@"+strings.TrimPrefix(name, "@"))
	}
	if ip, err := netip.ParseAddr(name); err == nil {
		return source.Contains(ip.Unmap())
	}
	p, err := netip.ParsePrefix(name)
	return err == nil && p.Overlaps(source)
}

// Bans asks for the bans of a selection that are in force; a zero one is all.
func (c *Client) Bans(ctx context.Context, sel BanSelection) (list []Ban, err error) {
	return list, c.do(ctx, "POST", "/bans/list", sel, &list)
}

// Unban ends the bans of a selection, forgets what has been counted, and returns the bans that it has ended.
func (c *Client) Unban(ctx context.Context, sel BanSelection) (list []Ban, err error) {
	return list, c.do(ctx, "POST", "/bans/lift", sel, &list)
}

func (s *Server) bans(w http.ResponseWriter, r *http.Request) {
	var sel BanSelection
	if err := decode(w, r, &sel); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer(w, append([]Ban{}, s.daemon.Bans(sel)...))
}

var errWhichBans = errors.New("say which bans: an IP address, an account, or --all")

func (s *Server) unban(w http.ResponseWriter, r *http.Request) {
	var sel BanSelection
	err := decode(w, r, &sel)
	if err == nil && sel.All == (sel.Name != "") {
		err = errWhichBans
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer(w, append([]Ban{}, s.daemon.Unban(sel)...))
}
