package ctl

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/open"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// StoreFlags say which database to look into.
type StoreFlags struct {
	Store string `help:"Database: postgres://user@host/db or sqlite:FILE. Default: that of ctl up." default:"${store}" placeholder:"URL"`
	Table string `help:"Table to look into." default:"sip_trace"`
}

// reader opens the database for reading.
func (f *StoreFlags) reader() (store.Store, error) {
	if err := open.Check(f.Store); err != nil {
		return nil, app.UsageError{Err: err}
	}
	return open.Reader(f.Store, store.Options{Table: f.Table})
}

// RangeFlags bound the capture time.
type RangeFlags struct {
	Since  app.Duration `help:"Look back this far: 15m, 1h30m, 7d; without it and --from 1d." placeholder:"DURATION" xor:"range"`
	From   string       `help:"Begin of the time range: 2026-11-22T08:00:00Z, \"2026-11-22 08:00\", 08:00 (today); without a zone it is local time." placeholder:"TIME" xor:"range"`
	ToTime string       `help:"End of the time range, as --from; default: now." placeholder:"TIME"`
}

// lookBack is --since. Its default is no flag's default, for that would be a
// value beside --from.
func (f *RangeFlags) lookBack() app.Duration { return cmp.Or(f.Since, app.Duration(24*time.Hour)) }

// bounds are the two ends of the range; the later one may be zero.
func (f *RangeFlags) bounds(now time.Time) (from, to time.Time, err error) {
	from = now.Add(-time.Duration(f.lookBack()))
	if f.From != "" {
		if from, err = parseTime(f.From, now); err != nil {
			return from, to, err
		}
	}
	if f.ToTime != "" {
		if to, err = parseTime(f.ToTime, now); err != nil {
			return from, to, err
		}
		if !to.After(from) {
			return from, to, app.Usagef("the range ends (%s) before it begins (%s)", to.Format(time.DateTime), from.Format(time.DateTime))
		}
	}
	return from, to, nil
}

// String says the range in words, for "nothing found".
func (f *RangeFlags) String() string {
	if f.From == "" && f.ToTime == "" {
		return "in the last " + f.lookBack().String()
	}
	return "in that time"
}

// parseTime reads a time as people write it.
func parseTime(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02 15:04:05.999999", "2006-01-02T15:04:05.999999", "2006-01-02 15:04", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range []string{"15:04:05.999999", "15:04"} {
		if t, err := time.Parse(layout, s); err == nil {
			y, m, d := now.Date()
			return time.Date(y, m, d, t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), now.Location()), nil
		}
	}
	return time.Time{}, app.Usagef("time %q: use 2026-11-22T08:00:00Z, \"2026-11-22 08:00\" or 08:00", s)
}

// FilterFlags choose messages.
type FilterFlags struct {
	CallID string `name:"call-id" help:"Exact Call-ID." placeholder:"ID"`
	User   string `help:"User of From, To or request URI, or a traced user." placeholder:"USER"`
	Method string `help:"Method, of requests and of their replies." placeholder:"METHOD"`
	Addr   string `help:"Source or destination: address, address:port or network (10.0.0.0/8)." placeholder:"ADDR"`
}

// apply puts the filter into a query.
func (f *FilterFlags) apply(q *trace.Query) error {
	q.CallID, q.User, q.Method = f.CallID, f.User, strings.ToUpper(f.Method)
	if f.Addr == "" {
		return nil
	}
	if p, err := netip.ParsePrefix(f.Addr); err == nil {
		q.Addr = p.Masked()
		return nil
	}
	if ap, err := netip.ParseAddrPort(f.Addr); err == nil {
		q.Addr, q.Port = netip.PrefixFrom(ap.Addr(), ap.Addr().BitLen()), ap.Port()
		return nil
	}
	a, err := netip.ParseAddr(strings.Trim(f.Addr, "[]"))
	if err != nil {
		return app.Usagef("address %q: use 10.0.0.1, 10.0.0.1:5060, [2001:db8::1]:5060 or 10.0.0.0/8", f.Addr)
	}
	q.Addr = netip.PrefixFrom(a, a.BitLen())
	return nil
}

// none is what is said when nothing was found.
func none(what string, r *RangeFlags) error {
	return fmt.Errorf("no %s %s; look further back with --since 7d, or see whether anything arrives: %s tail", what, r, self())
}
