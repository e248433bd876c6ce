package listen

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"
)

// complaintEvery is how often complaints are spoken of.
const complaintEvery = time.Second

// complaints say what is wrong with what strangers send: the first at once,
// then at most one line a second, with how many it stands for. Several
// goroutines may complain.
type complaints struct {
	log  *slog.Logger
	text string // what the log says

	mu     sync.Mutex
	count  int // not spoken of yet
	last   complaint
	timer  *time.Timer
	silent bool // the timer runs: speak when it fires
}

// complaint is one of them, the latest.
type complaint struct {
	reason string
	from   netip.AddrPort
	err    error
}

func newComplaints(log *slog.Logger, text string) *complaints {
	return &complaints{log: log, text: text}
}

// add complains of what came from a sender. err may be nil.
func (c *complaints) add(reason string, from netip.AddrPort, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count++
	c.last = complaint{reason, from, err}
	if !c.silent {
		c.speak()
	}
}

// speak says what is there to say and is silent for a while. With c.mu held.
func (c *complaints) speak() {
	c.say()
	c.silent = true
	if c.timer == nil {
		c.timer = time.AfterFunc(complaintEvery, c.wake)
	} else {
		c.timer.Reset(complaintEvery)
	}
}

// wake ends the silence.
func (c *complaints) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = false
	if c.count > 0 {
		c.speak()
	}
}

// flush says the rest and stops the timer. Complaints may be added afterwards.
func (c *complaints) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.timer != nil {
		c.timer.Stop()
	}
	c.silent = false
	if c.count > 0 {
		c.say()
	}
}

// say writes the line. With c.mu held.
func (c *complaints) say() {
	args := []any{"count", c.count, "reason", c.last.reason}
	if c.last.from.IsValid() {
		args = append(args, "from", c.last.from)
	}
	if c.last.err != nil {
		args = append(args, "err", c.last.err)
	}
	c.log.Warn(c.text, args...)
	c.count = 0
}
