package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// Between two looks at what the peer has acknowledged, from and to.
	firstLook = 50 * time.Microsecond
	lastLook  = 5 * time.Millisecond

	// busyLooks come before those: on a fast network the answer is nearly there.
	busyLooks = 4

	// probation is how long after the first acknowledgement of a connection
	// the peer may still turn it down: one that does not like our
	// certificate or our address has a kernel that acknowledges all the same.
	probation = 100 * time.Millisecond

	// lastWords is how long a peer's reason is waited for after a failed write.
	lastWords = 50 * time.Millisecond
)

// errPeerClosed says that the far side has closed the connection.
var errPeerClosed = errors.New("connection closed by the collector")

// link is one connection. It ends once and for all, with the first error.
type link struct {
	conn   *streamConn
	ended  func(error) // is told why it is over
	since  time.Time
	proven atomic.Bool // the peer has taken something and kept the connection

	once    sync.Once
	lost    chan struct{} // closed when it is over
	why     error         // set before that
	watched chan struct{} // closed when nobody reads any more
}

// startLink begins to watch a connection, until close.
func startLink(conn *streamConn, ended func(error)) *link {
	l := &link{conn: conn, ended: ended, since: time.Now(), lost: make(chan struct{}), watched: make(chan struct{})}
	go l.watch()
	return l
}

// watch reads, so that the end of the connection is noticed though nothing is
// sent. A collector has nothing to say; what it says is left aside.
func (l *link) watch() {
	defer close(l.watched)
	buf := make([]byte, 512)
	for {
		_, err := l.conn.Read(buf)
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			l.fail(errPeerClosed)
			return
		default:
			l.fail(err)
			return
		}
	}
}

// up reports whether the connection is not over yet, as far as is known.
func (l *link) up() bool {
	select {
	case <-l.lost:
		return false
	default:
		return true
	}
}

// fail ends the connection at once.
func (l *link) fail(err error) {
	l.once.Do(func() {
		l.why = err
		close(l.lost)
		_ = l.conn.tcp.Close() // nothing more is to be sent, not even a farewell of TLS
		l.ended(err)
	})
}

// close ends the connection in good order.
func (l *link) close() {
	l.once.Do(func() {
		l.why = errClosed
		close(l.lost)
		_ = l.conn.Close()
		l.ended(errClosed)
	})
}

// wait waits for what the connection has running, once it is over.
func (l *link) wait() { <-l.watched }

// written is the position behind the last byte that the kernel took.
func (l *link) written() uint64 { return l.conn.tcp.written.Load() }

// write writes b within a time. A connection that did not take all of it is over.
func (l *link) write(ctx context.Context, b []byte, timeout time.Duration) error {
	err := l.conn.tcp.SetWriteDeadline(time.Now().Add(timeout))
	if err == nil {
		cut := make(chan struct{})
		stop := context.AfterFunc(ctx, func() {
			defer close(cut)
			_ = l.conn.tcp.SetWriteDeadline(time.Unix(1, 0))
		})
		_, err = l.conn.Write(b)
		if !stop() {
			<-cut // or it would cut the next write
		}
	}
	if err == nil {
		return nil
	}
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("nothing taken for %v: %w", timeout, os.ErrDeadlineExceeded)
	default:
		l.lastWords(ctx)
	}
	l.fail(err)
	return l.reason()
}

// lastWords lets the peer say why it has closed the connection, for what TLS
// tells of that is read, and better than the "broken pipe" of a write.
func (l *link) lastWords(ctx context.Context) { _ = l.pause(ctx, lastWords) }

// reason is why the connection is over.
func (l *link) reason() error {
	<-l.lost
	return l.why
}

// acknowledged waits until the peer's kernel has acknowledged all bytes up to
// end. A connection without any progress within a time is over.
func (l *link) acknowledged(ctx context.Context, end uint64, timeout time.Duration) error {
	last, since := uint64(0), time.Now()
	pause := time.Duration(0)
	for looks := 0; ; looks++ {
		acked, err := l.conn.tcp.acknowledged()
		if err != nil {
			l.fail(err)
		}
		if !l.up() {
			return l.reason()
		}
		if acked >= end {
			return l.prove(ctx)
		}
		if looks < busyLooks {
			runtime.Gosched()
			continue
		}
		pause = min(max(2*pause, firstLook), lastLook)
		if acked > last {
			last, since, pause = acked, time.Now(), firstLook
		}
		if time.Since(since) > timeout {
			l.fail(fmt.Errorf("nothing acknowledged for %v: %w", timeout, os.ErrDeadlineExceeded))
			return l.reason()
		}
		if err := l.pause(ctx, pause); err != nil {
			return err
		}
	}
}

// prove lets the first acknowledgement of a connection count only if the
// connection outlives it.
func (l *link) prove(ctx context.Context) error {
	if l.proven.Load() {
		return nil
	}
	if err := l.pause(ctx, probation); err != nil {
		return err
	}
	l.proven.Store(true)
	return nil
}

// settled waits until a new connection has lasted a moment.
func (l *link) settled(ctx context.Context) error {
	if rest := probation - time.Since(l.since); rest > 0 && !l.proven.Load() {
		return l.pause(ctx, rest)
	}
	return nil
}

// pause waits, unless the connection or ctx ends.
func (l *link) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-l.lost:
		return l.why
	case <-ctx.Done():
		return ctx.Err()
	}
}
