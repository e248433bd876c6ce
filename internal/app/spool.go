package app

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/seed-452fa805/siptrace/internal/bus"
	"github.com/seed-452fa805/siptrace/internal/spool"
)

// SpoolFlags say what a tap keeps on disk while NATS is away.
type SpoolFlags struct {
	Spool     string   `help:"Folder for what NATS does not take, one for each tap; \"off\" for none. Default: spool in the folder of --data." placeholder:"DIR"`
	SpoolSize Size     `help:"How much disk the spool may take." default:"1GiB" placeholder:"SIZE"`
	SpoolSync Duration `help:"How often memory is written to the spool while NATS is away: a tap that is killed then loses what came since." default:"200ms"`
	SpoolFull string   `help:"A full spool gives up its oldest messages, or takes no new ones: the buffer fills then, and what is new is dropped and counted." enum:"drop-oldest,drop-newest" default:"drop-oldest"`
	DrainRate int      `help:"Messages a second that come back from the spool, at most; live ones go first." default:"50000" placeholder:"N"`
}

func (f *SpoolFlags) validate() error {
	if f.SpoolSize != 0 && f.SpoolSize < spool.MinBytes {
		return fmt.Errorf("--spool-size %v is too small: at least %v, or --spool off", f.SpoolSize, Size(spool.MinBytes))
	}
	if f.DrainRate < 0 {
		return errors.New("--drain-rate takes a number above nought")
	}
	return nil
}

// spoolDir is the folder of the spool, or "" for none; asked is true when
// somebody named it.
func (f *TapFlags) spoolDir() (dir string, asked bool) {
	switch f.Spool {
	case "off":
		return "", false
	case "":
		if file := f.dataFile("spool"); file != "" {
			return filepath.Join(filepath.Dir(file), "spool"), false
		}
		return "", false
	}
	return f.Spool, true
}

// openSpool returns the spool, or nil where there is none. A folder that
// somebody named must work; the default one need not.
func openSpool(f *TapFlags, reg prometheus.Registerer, log *slog.Logger) (bus.Spool, error) {
	dir, asked := f.spoolDir()
	if dir == "" {
		return nil, nil
	}
	s, err := spool.Open(dir, spool.Options{
		MaxBytes:   int64(f.SpoolSize),
		DropOldest: f.SpoolFull != "drop-newest",
	}, reg, log)
	if err == nil {
		return s, nil
	}
	if asked {
		return nil, fmt.Errorf("%w: give another --spool, or --spool off", err)
	}
	log.Warn("no spool: while NATS is away messages stay in memory alone", "dir", dir, "err", err)
	return nil, nil
}

// publisherOptions are the flags as the publisher wants them.
func (f *TapFlags) publisherOptions() bus.PublisherOptions {
	return bus.PublisherOptions{
		Agent:       f.AgentName,
		Compression: f.Compress,
		BufferBytes: int64(f.Buffer),
		Subsystem:   "tap",
		Shards:      max(1, f.shards),
		AwaitShards: true,
		SpoolSync:   time.Duration(f.SpoolSync),
		DrainRate:   f.DrainRate,
	}
}
