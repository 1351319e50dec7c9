package sink

import (
	"encoding/base64"
	"strings"
)

// auth is the AUTH command (RFC 4954) with PLAIN (RFC 4616) and LOGIN.
func (c *session) auth(arg string) error {
	mechanism, initial, given := strings.Cut(arg, " ")
	mechanism = strings.ToUpper(mechanism)
	switch {
	case !c.offers("AUTH"):
		return c.say("502 5.5.1 AUTH was not offered")
	case c.helo == "" || c.user != "" || c.txn != nil:
		return c.say("503 5.5.1 bad sequence of commands")
	}
	var name, password string
	var ok bool
	var err error
	switch mechanism {
	case "PLAIN":
		name, password, ok, err = c.authPlain(initial, given)
	case "LOGIN":
		name, password, ok, err = c.authLogin(initial, given)
	default:
		return c.say("504 5.5.4 unknown mechanism")
	}
	if err != nil {
		return err
	}
	if !ok {
		return c.say("501 5.5.2 cannot decode that")
	}
	normal := "535 5.7.8 wrong name or password"
	if want, known := c.sink.opt.Users[name]; known && want == password {
		normal = "235 2.7.0 Ok"
	}
	code, err := c.reply("auth", mechanism, normal)
	if code == 235 {
		c.user = name
	}
	return err
}

func (c *session) authPlain(initial string, given bool) (name, password string, ok bool, err error) {
	if !given {
		if initial, err = c.challenge(""); err != nil {
			return "", "", false, err
		}
	}
	text, ok := decode(initial)
	parts := strings.Split(text, "\x00")
	if !ok || len(parts) != 3 {
		return "", "", false, nil
	}
	return parts[1], parts[2], true, nil
}

func (c *session) authLogin(initial string, given bool) (name, password string, ok bool, err error) {
	if !given {
		if initial, err = c.challenge("Username:"); err != nil {
			return "", "", false, err
		}
	}
	secret, err := c.challenge("Password:")
	if err != nil {
		return "", "", false, err
	}
	name, okName := decode(initial)
	password, okPassword := decode(secret)
	return name, password, okName && okPassword, nil
}

// challenge asks for a response line.
func (c *session) challenge(text string) (string, error) {
	_, err := c.act("334 " + base64.StdEncoding.EncodeToString([]byte(text)))
	if err != nil {
		return "", err
	}
	return c.readLine()
}

// decode reads a SASL response, where "=" stands for the empty string.
func decode(s string) (string, bool) {
	if s == "=" {
		return "", true
	}
	raw, err := base64.StdEncoding.DecodeString(s)
	return string(raw), err == nil
}
