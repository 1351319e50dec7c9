package queue

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
)

// A journal is the append-only half of the store: segments of a fixed size, filled with zeros
// beforehand, because a sync of bytes that overwrite zeros need not write the file's metadata.
//
// Appends commit in groups. Whoever comes while a sync is under way joins the batch that is
// written after it, and one of them writes and syncs it for all; whoever comes alone does not
// wait for company.
type journal struct {
	fs   FS
	dir  string
	size int64 // of a segment

	mu      sync.Mutex // guards collecting and broken
	collect *batch
	broken  error

	turn    sync.Mutex // held while a batch is written; guards what is below
	current *segment
	spare   chan *segment // made in the background; holds one
	making  bool
	buf     []byte // of the last batch, to be used again
	dirty   bool   // bytes of current were written without a sync
	syncs   int64
	batched int64 // frames in the batches that were synced
}

// A segment is one file of the journal.
type segment struct {
	number uint32
	name   string
	file   File
	salt   uint32
	end    int64 // where the next frame goes
	live   int64 // octets of frames that are still needed; guarded by the store
	bad    error // why it is to be set aside; nil if all of it is whole
}

// A place is where a frame stands.
type place struct {
	seg        *segment
	off        uint32
	head, body uint32
}

func (p place) size() int64 { return frameSize + int64(p.head) + int64(p.body) }

// A batch is frames that are written together.
type batch struct {
	frames []pending
	size   int64
	sync   bool
	done   chan struct{} // closed when err is known
	err    error
}

type pending struct {
	kind       byte
	head, body []byte
	at         *place
}

// A segment is at most this large. On a small disk it is smaller, so that the two that are always
// there leave room for mail.
const (
	segmentSize    = 16 << 20
	minSegmentSize = 256 << 10
)

// fitSegment is the size of segments on a disk with so much room.
func fitSegment(free uint64) int64 {
	size := int64(segmentSize)
	for size > minSegmentSize && uint64(size)*16 > free {
		size /= 2
	}
	return size
}

// maxKept is the largest buffer that is kept between batches, in bytes.
const maxKept = 1 << 20

func segmentName(number uint32) string { return fmt.Sprintf("%010d.log", number) }

// append writes a frame and returns where it stands. With sync it is durable then.
func (j *journal) append(kind byte, head, body []byte, sync bool) (place, error) {
	at := &place{head: uint32(len(head)), body: uint32(len(body))}
	j.mu.Lock()
	if j.broken != nil {
		j.mu.Unlock()
		return place{}, j.broken
	}
	b, leads := j.collect, false
	if b == nil { // the first of a batch writes it, as soon as the one before is written
		b, leads = &batch{done: make(chan struct{})}, true
		j.collect = b
	}
	b.frames = append(b.frames, pending{kind, head, body, at})
	b.size += frameSize + int64(len(head)) + int64(len(body))
	b.sync = b.sync || sync
	j.mu.Unlock()

	if leads {
		j.commit(b)
	}
	<-b.done
	return *at, b.err
}

// commit closes a batch to newcomers and writes it, when the one before is written.
func (j *journal) commit(b *batch) {
	j.turn.Lock()
	defer j.turn.Unlock()
	defer close(b.done)
	j.mu.Lock()
	j.collect = nil
	j.mu.Unlock()
	b.err = j.write(b)
}

// write puts a batch into the current segment, or the next if it does not fit.
func (j *journal) write(b *batch) error {
	if j.current.end+b.size > j.size && j.current.end > segmentHeader {
		if err := j.roll(); err != nil {
			return err
		}
	}
	seg := j.current
	buf := j.buf[:0]
	for _, p := range b.frames {
		p.at.seg, p.at.off = seg, uint32(seg.end)+uint32(len(buf))
		buf = appendFrame(buf, seg.salt, p.kind, p.head, p.body)
	}
	if cap(buf) <= maxKept {
		j.buf = buf
	}
	if _, err := seg.file.WriteAt(buf, seg.end); err != nil {
		return j.takeBack(int64(len(buf)), fmt.Errorf("writing to the queue: %w", err))
	}
	j.dirty = true
	if b.sync {
		if err := j.sync(); err != nil {
			return err
		}
		j.syncs++
		j.batched += int64(len(b.frames))
	}
	seg.end += int64(len(buf))
	if seg.end > j.size/2 {
		j.makeSpare()
	}
	return nil
}

// takeBack puts zeros over a batch that was written in part: what was refused must not be found at
// the next start. If even that fails, the disk is not to be trusted any more.
func (j *journal) takeBack(n int64, cause error) error {
	if _, err := j.current.file.WriteAt(make([]byte, n), j.current.end); err != nil {
		return j.fail(fmt.Errorf("%w; nor could it be taken back: %w", cause, err))
	}
	return cause
}

// sync makes the current segment durable. After a failure the kernel may have dropped the pages
// that it could not write, and says so only once: nothing taken from then on could be relied
// upon, so nothing more is taken until the store is opened anew.
func (j *journal) sync() error {
	if !j.dirty {
		return nil
	}
	if err := j.current.file.Sync(); err != nil {
		return j.fail(fmt.Errorf("a sync of the queue to disk failed, no more mail is taken until the disk is well and relayd is started again: %w", err))
	}
	j.dirty = false
	return nil
}

func (j *journal) fail(err error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken == nil {
		j.broken = err
	}
	return err
}

// failure is why nothing more is taken, nil while all is well.
func (j *journal) failure() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.broken
}

// roll goes on to the next segment. The one before is made durable first, so that only the last
// segment can ever have a torn end.
func (j *journal) roll() error {
	if err := j.sync(); err != nil {
		return err
	}
	j.makeSpare()
	next := <-j.spare
	j.making = false
	if next.bad != nil {
		return next.bad
	}
	j.current = next
	return nil
}

// makeSpare begins to make the next segment, if that has not begun. What comes out is in spare.
func (j *journal) makeSpare() {
	if j.making {
		return
	}
	j.making = true
	number := j.current.number + 1
	go func() {
		seg, err := j.create(number)
		if err != nil {
			seg = &segment{bad: err}
		}
		j.spare <- seg
	}()
}

// create makes a segment full of zeros, durable under its name.
func (j *journal) create(number uint32) (*segment, error) {
	var random [4]byte
	rand.Read(random[:])
	seg := &segment{number: number, name: filepath.Join(j.dir, segmentName(number)), salt: binary.LittleEndian.Uint32(random[:]), end: segmentHeader}
	tmp := seg.name + ".new"
	f, err := j.fs.Create(tmp)
	if err != nil {
		return nil, fmt.Errorf("making room for the queue: %w", err)
	}
	seg.file = f
	if err := j.furnish(seg, tmp); err != nil {
		f.Close()
		return nil, errors.Join(fmt.Errorf("making room for the queue: %w", err), j.fs.Remove(tmp))
	}
	return seg, nil
}

func (j *journal) furnish(seg *segment, tmp string) error {
	zeros := make([]byte, 1<<20)
	for off := int64(0); off < j.size; off += int64(len(zeros)) {
		if _, err := seg.file.WriteAt(zeros[:min(int64(len(zeros)), j.size-off)], off); err != nil {
			return err
		}
	}
	if _, err := seg.file.WriteAt(formatSegmentHeader(seg.salt), 0); err != nil {
		return err
	}
	if err := seg.file.Sync(); err != nil {
		return err
	}
	if err := j.fs.Rename(tmp, seg.name); err != nil {
		return err
	}
	return j.fs.SyncDir(j.dir)
}

// close ends the background work. The journal is of no use after it.
func (j *journal) close() error {
	j.turn.Lock()
	defer j.turn.Unlock()
	err := j.sync()
	if j.making {
		if spare := <-j.spare; spare.bad == nil {
			err = errors.Join(err, spare.file.Close(), j.fs.Remove(spare.name))
		}
		j.making = false
	}
	return err
}

// settle makes everything durable that was written so far.
func (j *journal) settle() error {
	j.turn.Lock()
	defer j.turn.Unlock()
	return j.sync()
}
