package main

import (
	"fmt"
	"strings"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"
)

// tell tells systemd (sd_notify(3)), where it has started relayd and wants to know.
func (d *daemon) tell(states ...string) {
	if _, err := sd.SdNotify(false, strings.Join(states, "\n")); err != nil {
		d.log.Warn("systemd cannot be told", "error", err.Error())
	}
}

// summary is what `systemctl status` shows.
func (d *daemon) summary() string {
	if failure := d.store.Health().Failure; failure != nil {
		return "No mail is taken, see relay-util status: writing the queue to disk has failed"
	}
	return fmt.Sprintf("%d messages in the queue, %d connections", d.store.Stats().Messages, d.connections())
}

// statusEvery is how often systemd is told the summary.
const statusEvery = 10 * time.Second

// watchdog gives systemd signs of life at half the time that it waits for one, and a summary, until all
// is down. The signs come from a goroutine that asks the main parts: where one of them hangs it hangs,
// or says nothing, and systemd starts relayd anew. A disk that fails is no reason to: what is queued in
// memory still goes out, and starting again does not mend it.
func (d *daemon) watchdog() {
	patience, err := sd.SdWatchdogEnabled(false)
	if err != nil {
		d.log.Warn("systemd's watchdog is not served", "error", err.Error())
	}
	status := time.NewTicker(statusEvery)
	defer status.Stop()
	var alive <-chan time.Time
	if patience > 0 {
		tick := time.NewTicker(patience / 2)
		defer tick.Stop()
		alive = tick.C
	}
	told := ""
	for {
		select {
		case <-d.done:
			return
		case <-alive:
			if d.isAlive() {
				d.tell(sd.SdNotifyWatchdog)
			}
		case <-status.C:
			if now := d.summary(); now != told && d.ctx.Err() == nil {
				told = now
				d.tell("STATUS=" + now)
			}
		}
	}
}

// acceptWithin is how long taking in one connection may last, which is microseconds, where nothing hangs.
const acceptWithin = 20 * time.Second

// isAlive reports whether the main parts do: the store and the scheduler by giving their locks at all,
// the servers by coming back for the next connection.
func (d *daemon) isAlive() bool {
	d.store.Stats()
	d.queue.Groups()
	for _, s := range d.servers {
		if !s.Accepting(acceptWithin) {
			d.log.Error("connections are not taken any more: systemd is not told that all is well")
			return false
		}
	}
	return true
}
