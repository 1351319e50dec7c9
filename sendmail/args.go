package sendmail

import (
	"errors"
	"fmt"
	"strings"
)

// A Call is what the arguments of the command ask for.
type Call struct {
	Request
	Options
	Settings  string // -C, or -c as relay-util has it: another relayd.toml
	ListQueue bool   // -bp
	Verbose   bool   // -v
}

// Options of the command that have a value, in the same argument or in the next.

const (
	valued = "fFNRVrcCBhLOpXod"
	plain  = "tivnmUGA"
)

// ParseArgs reads arguments as sendmail has them since 4.2BSD. What asks for no more than mail to be sent
// in a certain way is ignored where this relay has one way; what asks for something else is an error.
func ParseArgs(args []string) (*Call, error) {
	call := &Call{}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		arg := args[0][1:]
		args = args[1:]
		if arg == "-" {
			break
		}
		if file, ok := strings.CutPrefix(arg, "-config"); ok {
			arg = "c" + strings.TrimPrefix(file, "=")
		}
		var err error
		if args, err = call.option(arg, args); err != nil {
			return nil, err
		}
	}
	for _, list := range args {
		call.Recipients = append(call.Recipients, addresses(list)...)
	}
	if len(call.Recipients) == 0 && !call.Extract && !call.ListQueue {
		return nil, ErrNoRecipients
	}
	return call, nil
}

// option takes one argument without its hyphen; it may be several letters together. It returns what is
// left of rest.
func (call *Call) option(arg string, rest []string) ([]string, error) {
	for len(arg) > 0 {
		c := arg[0]
		arg = arg[1:]
		switch {
		case c == 'b':
			return rest, call.mode(arg)
		case c == 'e', c == 'A' && arg != "": // how errors are told; which file of settings
			return rest, nil
		case strings.IndexByte(valued, c) >= 0:
			if arg == "" {
				if len(rest) == 0 {
					return nil, fmt.Errorf("-%c needs a value", c)
				}
				arg, rest = rest[0], rest[1:]
			}
			return rest, call.set(c, arg)
		case strings.IndexByte(plain, c) < 0:
			return nil, fmt.Errorf("-%c is not known here; relay-util sendmail --help lists what is", c)
		}
		call.flag(c)
	}
	return rest, nil
}

func (call *Call) flag(c byte) {
	switch c {
	case 't':
		call.Extract = true
	case 'i':
		call.KeepDot = true
	case 'v':
		call.Verbose = true
	}
}

func (call *Call) mode(mode string) error {
	switch mode {
	case "m":
	case "p":
		call.ListQueue = true
	case "s":
		return errors.New("-bs, SMTP on standard input, is not offered: give the message itself, or connect to port 587")
	default:
		return fmt.Errorf("-b%s is not offered: relayd is a daemon of its own, see `systemctl status relayd`", mode)
	}
	return nil
}

func (call *Call) set(c byte, value string) error {
	switch c {
	case 'f', 'r':
		if call.Sender = strings.TrimSuffix(strings.TrimPrefix(value, "<"), ">"); call.Sender == "" {
			call.Sender = "<>"
		}
	case 'F':
		call.Name = value
	case 'c', 'C':
		call.Settings = value
	case 'o':
		call.KeepDot = call.KeepDot || value == "i"
	case 'V':
		call.EnvelopeID = value
	case 'R':
		if call.Return = strings.ToUpper(value); call.Return != "FULL" && call.Return != "HDRS" {
			return fmt.Errorf("-R is full or hdrs, not %q", value)
		}
	case 'N':
		call.Notify = strings.Split(strings.ToUpper(value), ",")
		if !validNotify(call.Notify) {
			return fmt.Errorf("-N is never, or some of success,failure,delay, not %q", value)
		}
	}
	return nil
}
