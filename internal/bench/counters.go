package bench

import (
	"context"
	"time"
)

// counters are what the programs themselves have counted so far.
type counters struct {
	kernel                                uint64 // dropped before the tap
	malformed, unselected, overflow       uint64 // dropped by the tap
	published, frames, bytes, unpublished uint64
	expired                               uint64 // frames
	rows, rejected                        uint64

	since time.Time // when rows was found to have its value
}

// counters asks the kernel, tap and db-writer.
func (p *pipe) counters(ctx context.Context) (counters, error) {
	var c counters
	tap, err := p.tap.metrics(ctx)
	if err != nil {
		return c, err
	}
	writer, err := p.writer.metrics(ctx)
	if err != nil {
		return c, err
	}
	if c.kernel, err = p.meter.proc.udpDrops(p.port); err != nil {
		return c, err
	}
	const dropped = "siptrace_tap_hep_dropped_total"
	c.malformed = tap.sum(dropped, "") - tap.sum(dropped, `reason="kernel"`)
	c.unselected = tap.sum("siptrace_tap_events_unselected_total", "")
	c.overflow = tap.sum("siptrace_tap_events_overflow_total", "")
	c.published = tap.sum("siptrace_tap_published_events_total", "")
	c.frames = tap.sum("siptrace_tap_published_frames_total", "")
	c.bytes = tap.sum("siptrace_tap_published_bytes_total", "")
	c.unpublished = tap.sum("siptrace_tap_publish_dropped_events_total", "")
	c.expired = writer.sum("siptrace_stream_expired_unread_total", "")
	c.rows = writer.sum(rowsMetric, "")
	c.rejected = writer.sum("siptrace_db_writer_rejected_total", "")
	c.since = time.Now()
	return c, nil
}

const rowsMetric = "siptrace_db_writer_rows_total"

// losses says where lost events were lost, as far as anybody has counted them.
func (c counters) losses(base counters, lost uint64) []Loss {
	list := []Loss{
		{"kernel: socket buffer of the tap full", c.kernel - base.kernel},
		{"tap: no HEP, or refused", c.malformed - base.malformed},
		{"tap: not selected", c.unselected - base.unselected},
		{"tap: buffer before the stream full", c.overflow - base.overflow},
		{"tap: stream did not take it", c.unpublished - base.unpublished},
		{"stream: frames discarded unread", c.expired - base.expired},
		{"db-writer: rejected", c.rejected - base.rejected},
	}
	var found []Loss
	for _, l := range list {
		if l.Events > 0 {
			found = append(found, l)
			lost -= min(lost, l.Events)
		}
	}
	if lost > 0 {
		found = append(found, Loss{"nobody knows", lost})
	}
	return found
}

const (
	settlePoll  = 50 * time.Millisecond
	settleQuiet = 5 * time.Second // without a row more, nothing is coming
	settleMost  = 10 * time.Minute
)

// settle waits until so many events more than at base are stored, or until
// nothing is stored any more.
func (p *pipe) settle(ctx context.Context, base counters, sent uint64) (counters, error) {
	ctx, cancel := context.WithTimeout(ctx, settleMost)
	defer cancel()
	last := base
	for last.since = time.Now(); ; {
		c, err := p.counters(ctx)
		if err != nil {
			return c, err
		}
		if c.rows == last.rows {
			c.since = last.since
		}
		if c.rows-base.rows >= sent || time.Since(c.since) > settleQuiet {
			return c, nil
		}
		last = c
		if err := sleepUntil(ctx, time.Now().Add(settlePoll)); err != nil {
			return c, err
		}
	}
}
