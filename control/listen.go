package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// A listener keeps other daemons out of the state folder for as long as it is open.
type listener struct {
	net.Listener
	folder *os.File // locked
}

// Close removes the socket and lets the folder go.
func (l listener) Close() error { return errors.Join(l.Listener.Close(), l.folder.Close()) }

// Listen makes the socket, in place of one that a daemon which is gone has left, and with it
// claims the folder that it is in: it is an error if another daemon has, whether that answers or
// not. A crash gives the folder free. The caller closes the listener.
func Listen(path string) (net.Listener, error) {
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	l, err := listen(path, folder)
	if err != nil {
		folder.Close()
		return nil, err
	}
	return listener{l, folder}, nil
}

func listen(path string, folder *os.File) (net.Listener, error) {
	err := syscall.Flock(int(folder.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("another relayd is running: it holds %s", folder.Name())
	}
	if err != nil {
		return nil, fmt.Errorf("locking %s: %w", folder.Name(), err)
	}
	switch info, err := os.Lstat(path); {
	case err == nil && info.Mode()&fs.ModeSocket == 0:
		return nil, fmt.Errorf("%s is in the place of the control socket and is not one: move it away", path)
	case err == nil:
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
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
