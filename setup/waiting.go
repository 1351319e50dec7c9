package setup

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"

	"relayd/control"
	"relayd/queue"
	"relayd/sendmail"
)

// Waiting counts the messages in the queue of the usual place under root and in the drop folder beside it,
// and says whether a relayd runs. It is for RemovalOptions.
func Waiting(ctx context.Context, root string) (messages int, running bool, err error) {
	state := filepath.Join(root, usualState)
	messages, running, err = queued(ctx, state)
	dropped, unread := sendmail.Waiting(state)
	return messages + dropped, running, errors.Join(err, unread)
}

// queueName is the folder of the queue in that of the state.
const queueName = "queue"

// queued counts the messages in the queue: by the daemon, or in its files.
func queued(ctx context.Context, state string) (messages int, running bool, err error) {
	s, err := control.NewClient(filepath.Join(state, "control.sock")).Status(ctx)
	if err == nil {
		return s.Queue.Messages + len(s.Health.Damaged), true, nil
	}
	if !errors.Is(err, control.ErrNotRunning) {
		return 0, true, err
	}
	root, err := os.OpenRoot(state)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	defer root.Close()
	if _, err := root.Lstat(queueName); errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	store, err := queue.OpenStore(queue.StoreOptions{
		Dir: filepath.Join(state, queueName), FS: queue.Within(root, state),
		Group: func(*queue.Recipient) string { return "" }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return 0, false, err
	}
	n := store.Stats().Messages + len(store.Health().Damaged)
	return n, false, errors.Join(store.Close(), giveBack(root, queueName))
}

// giveBack makes everything in a folder of a state folder belong to its owner, who is not root.
func giveBack(root *os.Root, dir string) error {
	info, err := root.Lstat(dir)
	if err != nil {
		return err
	}
	owner := info.Sys().(*syscall.Stat_t)
	return fs.WalkDir(root.FS(), dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return root.Lchown(path, int(owner.Uid), int(owner.Gid))
	})
}
