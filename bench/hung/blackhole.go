package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// A blackHole is an address of this machine where nobody ever answers: its kernel drops what comes
// to open a connection, because the queue of those that wait to be accepted is full.
type blackHole struct {
	fd   int
	addr string
	full []int // connections that fill the queue
}

func newBlackHole() (*blackHole, error) {
	h := &blackHole{fd: -1}
	if err := h.open(); err != nil {
		h.close()
		return nil, fmt.Errorf("making a server that does not answer: %w", err)
	}
	return h, nil
}

func (h *blackHole) open() (err error) {
	if h.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	if err := unix.Bind(h.fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := unix.Listen(h.fd, 0); err != nil { // room for one
		return err
	}
	name, err := unix.Getsockname(h.fd)
	if err != nil {
		return err
	}
	h.addr = fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
	for range 3 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		h.full = append(h.full, fd)
		if err := unix.Connect(fd, name); err != nil && err != unix.EINPROGRESS {
			return err
		}
	}
	return nil
}

func (h *blackHole) close() {
	for _, fd := range append(h.full, h.fd) {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
