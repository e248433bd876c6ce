package app_test

import (
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
)

func TestDuration_readsDays(t *testing.T) {
	tests := []struct {
		in   string
		want time.Duration
		out  string
	}{
		{"90s", 90 * time.Second, "1m30s"},
		{"15m", 15 * time.Minute, "15m"},
		{"1h30m", 90 * time.Minute, "1h30m"},
		{"48h", 48 * time.Hour, "2d"},
		{"7d", 7 * 24 * time.Hour, "7d"},
		{"1d12h", 36 * time.Hour, "36h"},
		{"0s", 0, "0s"},
	}
	for _, tt := range tests {
		var d app.Duration
		if err := d.UnmarshalText([]byte(tt.in)); err != nil {
			t.Errorf("%s: %v", tt.in, err)
		}
		if time.Duration(d) != tt.want || d.String() != tt.out {
			t.Errorf("%s = %v, shown %s; want %v, shown %s", tt.in, time.Duration(d), d, tt.want, tt.out)
		}
		var again app.Duration
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%s does not read back: %v, %v", d, again, err)
		}
	}
	for _, bad := range []string{"", "d", "-1h", "5", "1 day", "99999999d", "xd1h"} {
		var d app.Duration
		if err := d.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q accepted as %v", bad, d)
		}
	}
}

func TestSize_readsUnits(t *testing.T) {
	tests := []struct {
		in   string
		want app.Size
		out  string
	}{
		{"65536", 65536, "64KiB"},
		{"64MiB", 64 << 20, "64MiB"},
		{"10GB", 10_000_000_000, "9765625KiB"},
		{"10GiB", 10 << 30, "10GiB"},
		{"0", 0, "0"},
	}
	for _, tt := range tests {
		var z app.Size
		if err := z.UnmarshalText([]byte(tt.in)); err != nil || z != tt.want || z.String() != tt.out {
			t.Errorf("%s = %d, shown %s, %v; want %d, shown %s", tt.in, z, z, err, tt.want, tt.out)
		}
	}
	for _, bad := range []string{"", "-1", "many", "1 parsec", "99999999999999999999"} {
		var z app.Size
		if err := z.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q accepted as %d", bad, z)
		}
	}
}
