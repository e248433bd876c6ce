package app

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// Duration is a time.Duration that people may also write in days: "7d", "1d12h".
type Duration time.Duration

// UnmarshalText reads "90s", "1h30m" or "7d".
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	var days time.Duration
	if n, rest, ok := strings.Cut(s, "d"); ok {
		whole, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return fmt.Errorf("duration %q: use 90s, 15m, 1h30m or 7d", s)
		}
		days, s = time.Duration(whole)*24*time.Hour, rest
		if s == "" {
			*d = Duration(days)
			return nil
		}
	}
	rest, err := time.ParseDuration(s)
	if err != nil || rest < 0 {
		return fmt.Errorf("duration %q: use 90s, 15m, 1h30m or 7d", string(text))
	}
	*d = Duration(days + rest)
	return nil
}

// String writes what UnmarshalText reads.
func (d Duration) String() string {
	const day = 24 * time.Hour
	t := time.Duration(d)
	if t >= day && t%day == 0 {
		return strconv.Itoa(int(t/day)) + "d"
	}
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Size is a number of bytes that people write "64MiB" or "10GB".
type Size int64

// UnmarshalText reads a number with or without a unit.
func (z *Size) UnmarshalText(text []byte) error {
	n, err := humanize.ParseBytes(string(text))
	if err != nil || n > 1<<62 {
		return fmt.Errorf("size %q: use 65536, 64MiB or 10GB", text)
	}
	*z = Size(n)
	return nil
}

// String writes what UnmarshalText reads.
func (z Size) String() string {
	for _, u := range []struct {
		name string
		size Size
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if z >= u.size && z%u.size == 0 {
			return strconv.FormatInt(int64(z/u.size), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(z), 10)
}
