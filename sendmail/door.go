package sendmail

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"syscall"
	"time"

	"relayd/message"
	"relayd/relay"
	"relayd/reply"
)

// An Inbound takes messages; *relay.Inbound is one.
type Inbound interface {
	Submit(ctx context.Context, s *relay.Submission, tx *relay.Transaction, m *message.Message) error
}

// DoorOptions are a Door's. All are required but UserName and Now.
type DoorOptions struct {
	StateDir    string // others may pass through it then, and what is in it is closed to them
	Rule        Rule
	Inbound     Inbound
	SpoolDir    string // where messages over message.MemoryLimit are kept while they arrive
	MessageSize int64  // bytes
	Log         *slog.Logger
	// UserName is the name of a local user; nil: as the system knows it.
	UserName func(uid uint32) (string, error)
	Now      func() time.Time // nil: time.Now
}

// A Door is where local users' mail comes in.
type Door struct {
	opt      DoorOptions
	listener net.Listener
	slots    slots
	// Of takeAll alone: until when each user's files in the drop folder are left alone, and the files
	// that are until the next start.
	resting map[uint32]time.Time
	aside   map[string]bool
	left    map[uint32]*left // at this look so far
	// mostFiles is how many one user may leave.
	mostFiles int
	remove    func(path string) error // of what was taken in
}

// Bounds on the socket. A connection that is one too many is told so, and its message goes into the
// drop folder.
const (
	maxConnections = 64
	maxOfUser      = 8
	requestTime    = 10 * time.Second // for the line in front
	messageTime    = 5 * time.Minute  // for all the rest
)

// Open makes the socket and the drop folder, and the state folder passable for others: what else is in
// it they can then name but not open. The state folder must be locked by the caller, and files that are
// made in it later must not be open to others. Run serves them.
func Open(opt DoorOptions) (*Door, error) {
	if opt.UserName == nil {
		opt.UserName = systemName
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if err := prepare(opt.StateDir, opt.Log); err != nil {
		return nil, fmt.Errorf("opening %s for mail of local users: %w", opt.StateDir, err)
	}
	path := socketIn(opt.StateDir)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		l.Close()
		return nil, err
	}
	d := newDoor(opt)
	d.listener = l
	return d, nil
}

func newDoor(opt DoorOptions) *Door {
	return &Door{opt: opt, slots: slots{by: map[uint32]int{}}, resting: map[uint32]time.Time{}, aside: map[string]bool{}, left: map[uint32]*left{}, mostFiles: maxLeft, remove: os.Remove}
}

// prepare sets the modes. That of the state folder comes last.
func prepare(stateDir string, log *slog.Logger) error {
	entries, err := os.ReadDir(stateDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == filepath.Base(dropIn(stateDir)) {
			continue
		}
		info, err := e.Info()
		if err != nil || info.Mode()&fs.ModeSymlink != 0 || info.Mode().Perm()&0o007 == 0 {
			continue
		}
		err = os.Chmod(filepath.Join(stateDir, e.Name()), info.Mode().Perm()&^0o007)
		if errors.Is(err, fs.ErrPermission) { // somebody else has put it there, and it is theirs to close
			log.Warn("a file in the state folder is open to every user of this machine", "file", e.Name())
			continue
		}
		if err != nil {
			return err
		}
	}
	if err := os.Mkdir(dropIn(stateDir), 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := os.Chmod(dropIn(stateDir), fs.ModeSticky|0o733); err != nil {
		return err
	}
	info, err := os.Stat(stateDir)
	if err != nil {
		return err
	}
	return os.Chmod(stateDir, info.Mode().Perm()&^0o007|0o001)
}

// Shut keeps local users out of a state folder where they were let in before: nobody would look at what
// they leave there.
func Shut(stateDir string) error {
	err := os.Chmod(dropIn(stateDir), 0o700)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.Remove(socketIn(stateDir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return err
}

func systemName(uid uint32) (string, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return "", err
	}
	return u.Username, nil
}

// Run takes mail until ctx ends, and returns when all that was begun has ended. It closes the socket.
func (d *Door) Run(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	stop := context.AfterFunc(ctx, func() { d.listener.Close() })
	defer stop()
	all.Go(func() { d.watchDrop(ctx) })
	for {
		conn, err := d.listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) {
				time.Sleep(100 * time.Millisecond) // as net/http does: it passes
				continue
			}
			return err
		}
		uid, err := peer(conn)
		if err != nil || !d.slots.take(uid) {
			d.tell(conn, reply.New(busy, "4.3.2", "Too much mail of yours comes at once"))
			conn.Close()
			continue
		}
		all.Go(func() {
			defer d.slots.release(uid)
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			d.serve(ctx, conn, uid)
		})
	}
}

// peer is the user at the other end, as the kernel knows.
func peer(conn net.Conn) (uint32, error) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(err, failed); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// serve takes one message.
func (d *Door) serve(ctx context.Context, conn net.Conn, uid uint32) {
	conn.SetDeadline(time.Now().Add(requestTime))
	in := bufio.NewReader(conn)
	req, _, err := readRequest(in)
	if err != nil {
		d.tell(conn, reply.New(501, "5.5.4", "%v", err))
		return
	}
	if req.Size > d.opt.MessageSize {
		d.tell(conn, reply.From(relay.ReadError(message.ErrTooLarge, d.opt.MessageSize)))
		return
	}
	conn.SetDeadline(time.Now().Add(messageTime))
	if !d.tell(conn, reply.New(goOn, "", "Go on")) {
		return
	}
	body := &io.LimitedReader{R: in, N: req.Size}
	id, err := d.take(ctx, uid, &req, body)
	if err != nil {
		io.Copy(io.Discard, body) // or the answer would be lost
		d.tell(conn, reply.From(err))
		return
	}
	d.tell(conn, reply.New(250, "2.0.0", "Ok: queued as %s", id))
}

// tell answers. It returns false if nobody hears.
func (d *Door) tell(conn net.Conn, r *reply.Reply) bool {
	conn.SetWriteDeadline(time.Now().Add(requestTime))
	return json.NewEncoder(conn).Encode(Answer{r.Code, r.Enhanced, r.Text}) == nil
}

var errNotWhole = reply.New(451, "4.3.0", "The message broke off")

// take submits a message of req.Size bytes in the name of a local user, and returns its queue ID.
func (d *Door) take(ctx context.Context, uid uint32, req *Request, body *io.LimitedReader) (id string, err error) {
	defer d.contain(uid, &err)
	name, err := d.opt.UserName(uid)
	if _, unknown := errors.AsType[user.UnknownUserIdError](err); unknown {
		return "", reply.New(550, "5.7.1", "The user of the number %d has no name on this machine", uid).Because(err)
	}
	if err != nil {
		return "", reply.Internal(fmt.Errorf("looking for the name of the user %d: %w", uid, err))
	}
	s, err := d.opt.Rule.submission(name, req)
	if err != nil {
		return "", err
	}
	text, err := d.opt.Rule.completed(body, s, req.Name)
	if err != nil {
		return "", relay.ReadError(err, d.opt.MessageSize)
	}
	m, err := message.Read(text, d.opt.SpoolDir, d.opt.MessageSize)
	if err != nil {
		return "", relay.ReadError(err, d.opt.MessageSize)
	}
	defer m.Close()
	if body.N > 0 {
		return "", errNotWhole
	}
	tx := s.Begin()
	if err := d.opt.Inbound.Submit(ctx, s, tx, m); err != nil {
		return "", err
	}
	return tx.ID, nil
}

// errPanicked is within the reply to a message that brought us to a panic.
var errPanicked = errors.New("a panic, which the log tells of")

// contain is to be deferred by what looks into a message: a panic over it ends nothing else. A file in the
// drop folder would make relayd end again at every start.
func (d *Door) contain(uid uint32, err *error) {
	if p := recover(); p != nil {
		d.opt.Log.Error("panic over mail of a local user", "uid", uid, "panic", p, "stack", string(debug.Stack()))
		*err = reply.Internal(errPanicked)
	}
}

// slots count the connections of each user.
type slots struct {
	mu  sync.Mutex
	all int
	by  map[uint32]int
}

func (s *slots) take(uid uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all >= maxConnections || s.by[uid] >= maxOfUser {
		return false
	}
	s.all++
	s.by[uid]++
	return true
}

func (s *slots) release(uid uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.by[uid]--; s.by[uid] == 0 {
		delete(s.by, uid)
	}
}
