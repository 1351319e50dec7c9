package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A served drive is a file of its size, through the kernel's FUSE protocol (linux/fuse.h, version
// 7.31): the mount point is the file itself, so there is no folder and nothing to look up.
type served struct {
	drive *drive
	file  string
	dev   int           // /dev/fuse
	done  chan struct{} // closed when the kernel asks nothing more
}

// What the kernel asks for.
const (
	opForget  = 2
	opGetattr = 3
	opOpen    = 14
	opRead    = 15
	opWrite   = 16
	opRelease = 18
	opFsync   = 20
	opFlush   = 25
	opInit    = 26
	opDestroy = 38

	opInterrupt   = 36
	opBatchForget = 42
)

const (
	inHeader  = 40
	outHeader = 16
	maxWrite  = 1 << 20

	initBigWrites = 1 << 5
	initMaxPages  = 1 << 22
	openDirectIO  = 1 // nothing of the file is cached before it comes here
)

// serve makes d the file that stands at path, until stop.
func serve(d *drive, path string) (*served, error) {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return nil, err
	}
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/fuse: %w", err)
	}
	s := &served{drive: d, file: path, dev: fd, done: make(chan struct{})}
	opts := fmt.Sprintf("fd=%d,rootmode=100600,user_id=0,group_id=0", fd)
	if err := unix.Mount("powercut", path, "fuse", unix.MS_NODEV|unix.MS_NOSUID, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("mounting a FUSE file: %w", err), unix.Close(fd))
	}
	go s.loop()
	return s, nil
}

// stop ends the file. Nothing may use it any more.
func (s *served) stop() error {
	err := unix.Unmount(s.file, unix.MNT_DETACH)
	<-s.done
	return errors.Join(err, unix.Close(s.dev))
}

func (s *served) loop() {
	defer close(s.done)
	buf := make([]byte, maxWrite+4096)
	for {
		n, err := unix.Read(s.dev, buf)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN || err == unix.ENOENT: // taken back before it was read
			continue
		case err != nil || n < inHeader:
			return
		}
		op, unique := binary.LittleEndian.Uint32(buf[4:]), binary.LittleEndian.Uint64(buf[8:])
		if op == opForget || op == opBatchForget || op == opInterrupt {
			continue // they have no answer
		}
		out, errno := s.answer(op, buf[inHeader:n])
		reply := make([]byte, outHeader, outHeader+len(out))
		binary.LittleEndian.PutUint32(reply, uint32(outHeader+len(out)))
		binary.LittleEndian.PutUint32(reply[4:], uint32(-int32(errno)))
		binary.LittleEndian.PutUint64(reply[8:], unique)
		if _, err := unix.Write(s.dev, append(reply, out...)); err != nil && err != unix.ENOENT {
			return
		}
	}
}

func (s *served) answer(op uint32, in []byte) (out []byte, errno unix.Errno) {
	le := binary.LittleEndian
	switch op {
	case opInit:
		out = make([]byte, 64)
		le.PutUint32(out, 7)
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[12:], le.Uint32(in[12:])&(initBigWrites|initMaxPages))
		le.PutUint32(out[20:], maxWrite)
		le.PutUint32(out[24:], 1)             // a nanosecond's grain
		le.PutUint16(out[28:], maxWrite/4096) // pages of a request
		return out, 0
	case opGetattr:
		out = make([]byte, 104)
		le.PutUint64(out[16:], 1) // the inode
		le.PutUint64(out[24:], uint64(s.drive.size()))
		le.PutUint64(out[32:], uint64(s.drive.size()/512))
		le.PutUint32(out[76:], unix.S_IFREG|0o600)
		le.PutUint32(out[80:], 1)
		return out, 0
	case opOpen:
		out = make([]byte, 16)
		le.PutUint32(out[8:], openDirectIO)
		return out, 0
	case opRead:
		out = make([]byte, le.Uint32(in[16:]))
		return out[:s.drive.read(out, int64(le.Uint64(in[8:])))], 0
	case opWrite:
		n := le.Uint32(in[16:])
		if !s.drive.write(in[40:40+n], int64(le.Uint64(in[8:]))) {
			return nil, unix.ENOSPC
		}
		return le.AppendUint32(make([]byte, 0, 8), n)[:8], 0
	case opFsync:
		s.drive.flush()
		return nil, 0
	case opFlush, opRelease, opDestroy:
		return nil, 0
	}
	return nil, unix.ENOSYS
}
