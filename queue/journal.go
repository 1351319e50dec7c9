package queue

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"
)

// A journal is the append-only half of the store: segments of a fixed size, filled with zeros
// beforehand, because a sync of bytes that overwrite zeros need not write the file's metadata.
//
// A frame is written at once, so that it survives the process from then on. Syncs commit in
// groups: whoever needs one while another is under way shares the one after it, and one of them
// makes it for all; whoever comes alone does not wait for company. Two syncs of a file are never
// under way together, for the kernel tells of a failure only once.
type journal struct {
	fs   FS
	dir  string
	size int64 // of a new segment

	mu      sync.Mutex // guards the rest; held while a frame is written
	broken  error
	current *segment
	spare   chan *segment // made in the background; holds one
	making  bool
	buf     []byte      // of the last frame, to be used again
	written int64       // octets of frames so far, over all segments
	synced  int64       // how many of these are durable
	next    *sharedSync // that has not begun
	syncing bool
	ended   sync.Cond // a sync has
	counts  syncCounts
}

// A sharedSync is one sync that several appends wait for.
type sharedSync struct {
	done chan struct{} // closed when err is known
	err  error
}

// syncCounts tell how well appends share syncs.
type syncCounts struct {
	syncs, appends int64 // that were made, and that waited for them
	time           time.Duration
}

func (j *journal) init(fs FS, dir string, size int64) {
	j.fs, j.dir, j.size = fs, dir, size
	j.spare = make(chan *segment, 1)
	j.ended.L = &j.mu
}

// A segment is one file of the journal.
type segment struct {
	number uint32
	name   string
	file   File
	salt   uint32
	size   int64 // of the file: those of another start may be larger or smaller than what is made now
	end    int64 // where the next frame goes
	live   int64 // octets of frames that are still needed; guarded by the store
	bad    error // why it is to be set aside; nil if all of it is whole
	// pending are frames that stand in it and that the store does not know of yet: none of them is
	// in live, and a segment that goes with one takes a message along that may have its 250 already.
	pending sync.WaitGroup
}

// A place is where a frame stands.
type place struct {
	seg        *segment
	off        uint32
	head, body uint32
}

func (p place) size() int64 { return frameSize + int64(p.head) + int64(p.body) }

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

// maxKept is the largest buffer that is kept between frames, in bytes.
const maxKept = 1 << 20

func segmentName(number uint32) string { return fmt.Sprintf("%010d.log", number) }

// append writes a frame and returns where it stands. With sync it is durable then. The frame is
// pending in its segment until the caller has noted the place; after an error it is not.
func (j *journal) append(kind byte, head, body []byte, sync bool) (place, error) {
	at, end, err := j.write(kind, head, body)
	if err != nil || !sync {
		return at, err
	}
	if err = j.syncTo(end); err != nil {
		at.seg.pending.Done()
	}
	return at, err
}

// write puts a frame into the current segment, or the next if it does not fit. end is what
// syncTo needs to know.
func (j *journal) write(kind byte, head, body []byte) (at place, end int64, err error) {
	n := frameSize + int64(len(head)) + int64(len(body))
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.current.end+n > j.current.size && j.current.end > segmentHeader && j.broken == nil {
		if j.syncing {
			j.ended.Wait()
		} else if err := j.roll(); err != nil {
			return place{}, 0, err
		}
	}
	if j.broken != nil {
		return place{}, 0, j.broken
	}
	seg := j.current
	buf := appendFrame(j.buf[:0], seg.salt, kind, head, body)
	if cap(buf) <= maxKept {
		j.buf = buf
	}
	if _, err := seg.file.WriteAt(buf, seg.end); err != nil {
		return place{}, 0, j.takeBack(n, fmt.Errorf("writing to the queue: %w", err))
	}
	at = place{seg: seg, off: uint32(seg.end), head: uint32(len(head)), body: uint32(len(body))}
	seg.end += n
	seg.pending.Add(1)
	j.written += n
	if seg.end > seg.size/2 {
		j.makeSpare()
	}
	return at, j.written, nil
}

// takeBack puts zeros over a frame that was written in part: what was refused must not be found at
// the next start. If even that fails, the disk is not to be trusted any more.
func (j *journal) takeBack(n int64, cause error) error {
	if _, err := j.current.file.WriteAt(make([]byte, n), j.current.end); err != nil {
		j.broken = fmt.Errorf("%w; nor could it be taken back: %w", cause, err)
		return j.broken
	}
	return cause
}

// syncTo makes durable what was written up to end, together with whoever else needs that.
func (j *journal) syncTo(end int64) error {
	j.mu.Lock()
	j.counts.appends++
	if j.synced >= end {
		j.mu.Unlock()
		return nil
	}
	s, leads := j.next, false
	if s == nil { // the first makes it, as soon as the one before has ended
		s, leads = &sharedSync{done: make(chan struct{})}, true
		j.next = s
	}
	j.mu.Unlock()
	if leads {
		j.lead(s)
	}
	<-s.done
	return s.err
}

// lead makes a sync for all who share it. What they wrote is in the current segment: those before
// it are durable.
func (j *journal) lead(s *sharedSync) {
	defer close(s.done)
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.syncing {
		j.ended.Wait()
	}
	j.next = nil
	file, target, begun := j.current.file, j.written, time.Now()
	if j.broken != nil {
		s.err = j.broken
		return
	}
	j.syncing = true
	j.mu.Unlock()
	err := file.Sync()
	j.mu.Lock()
	j.syncing = false
	j.ended.Broadcast()
	j.counts.time += time.Since(begun)
	s.err = j.note(err, target)
}

// note notes what a sync of everything up to target came to. After a failure the kernel may have
// dropped the pages that it could not write, and says so only once: nothing taken from then on
// could be relied upon, so nothing more is taken until the store is opened anew.
func (j *journal) note(err error, target int64) error {
	j.counts.syncs++
	if err != nil && j.broken == nil {
		j.broken = fmt.Errorf("a sync of the queue to disk failed, no more mail is taken until the disk is well and relayd is started again: %w", err)
	}
	if j.broken == nil {
		j.synced = target
	}
	return j.broken
}

// flush makes everything durable that was written so far. The caller holds mu, and no sync is
// under way.
func (j *journal) flush() error {
	if j.broken != nil || j.synced == j.written {
		return j.broken
	}
	return j.note(j.current.file.Sync(), j.written)
}

// settle makes everything durable that was written so far.
func (j *journal) settle() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for j.syncing {
		j.ended.Wait()
	}
	return j.flush()
}

// fail makes err the reason why nothing more is taken, unless there is one.
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
// segment can ever have a torn end. The caller holds mu, and no sync is under way.
func (j *journal) roll() error {
	if err := j.flush(); err != nil {
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
	seg := &segment{number: number, name: filepath.Join(j.dir, segmentName(number)), salt: binary.LittleEndian.Uint32(random[:]), size: j.size, end: segmentHeader}
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
	err := j.settle()
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.making {
		if spare := <-j.spare; spare.bad == nil {
			err = errors.Join(err, spare.file.Close(), j.fs.Remove(spare.name))
		}
		j.making = false
	}
	return err
}
