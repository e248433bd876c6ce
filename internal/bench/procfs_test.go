package bench

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"testing/fstest"
	"time"
)

// process is a /proc/PID/stat: times in ticks of 10 ms.
func statFile(pid, parent int, name string, utime, stime, cutime, cstime int) *fstest.MapFile {
	return &fstest.MapFile{Data: fmt.Appendf(nil, "%d (%s) S %d 1 1 0 -1 4194560 100 0 0 0 %d %d %d %d 20 0 5 0 12345 1000000 200 18446744073709551615\n",
		pid, name, parent, utime, stime, cutime, cstime)}
}

func TestProcFS_cpu(t *testing.T) {
	p := procfs{fstest.MapFS{
		"1/stat":       statFile(1, 0, "init", 5000, 5000, 100, 100),
		"10/stat":      statFile(10, 1, "tap", 100, 50, 0, 0),
		"20/stat":      statFile(20, 1, "postgres", 10, 20, 300, 400), // with children that have ended
		"21/stat":      statFile(21, 20, "postgres: a) 1 2 (b", 1000, 2000, 0, 0),
		"22/stat":      statFile(22, 20, "postgres", 1, 2, 0, 0),
		"23/stat":      statFile(23, 22, "archiver", 4, 0, 8, 0), // a grandchild
		"30/stat":      statFile(30, 1, "other", 9999, 9999, 0, 0),
		"self/stat":    statFile(10, 1, "tap", 7, 7, 7, 7),
		"sys/nothing":  {},
		"41/not-there": {},
	}}
	got, err := p.cpu(10, 20)
	if err != nil {
		t.Fatal(err)
	}
	want := []time.Duration{1500 * time.Millisecond, (730 + 3000 + 3 + 12) * 10 * time.Millisecond}
	if !slices.Equal(got, want) {
		t.Errorf("cpu = %v, want %v", got, want)
	}
	if own, err := p.own(20); err != nil || own != 300*time.Millisecond {
		t.Errorf("own = %v, %v, want 300ms", own, err)
	}
	if _, err := p.cpu(10, 99); err == nil {
		t.Error("a process that is not there has CPU time")
	}
}

func TestProcFS_cpu_errors(t *testing.T) {
	for _, line := range []string{"", "1", "1 (x", "1 (x) S", "1 (x) S 0 1 1 0 -1 0 0 0 0 0 a b c d", "x (x) S 0 1 1 0 -1 0 0 0 0 0 1 1 1 1"} {
		if _, err := (procfs{fstest.MapFS{"1/stat": {Data: []byte(line)}}}).cpu(1); err == nil {
			t.Errorf("stat %q was read", line)
		}
	}
}

func TestProcFS_files(t *testing.T) {
	p := procfs{fstest.MapFS{
		"stat":     {Data: []byte("cpu  100 10 50 9000 30 5 6 7 0 0\ncpu0 50 5 25 4500 15 2 3 3 0 0\ncpu1 50 5 25 4500 15 3 3 4 0 0\nintr 1 2 3\n")},
		"7/status": {Data: []byte("Name:\ttap\nVmPeak:\t 2000000 kB\nVmHWM:\t   45000 kB\nVmRSS:\t   40000 kB\n")},
		"8/status": {Data: []byte("Name:\tkthreadd\n")},
		"meminfo":  {Data: []byte("MemTotal:       24000000 kB\nMemFree:         1 kB\n")},
		"cpuinfo":  {Data: []byte("processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\n")},
		"net/udp": {Data: []byte(`   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  505: 0100007F:2364 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 21055 2 0000000000000000 17
  506: 0100007F:2365 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 21056 2 0000000000000000 5
`)},
		"net/udp6": {Data: []byte(`  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  505: 00000000000000000000000000000000:2364 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 21057 2 0000000000000000 3
`)},
	}}
	t.Run("machine counts the time of all cores", func(t *testing.T) {
		got, err := p.machine()
		want := machineTime{cores: 2, busy: 1710 * time.Millisecond, stolen: 70 * time.Millisecond}
		if err != nil || got != want {
			t.Errorf("machine = %+v, %v, want %+v", got, err, want)
		}
	})
	t.Run("highWater is the most resident memory", func(t *testing.T) {
		if got, err := p.highWater(7); err != nil || got != 45000<<10 {
			t.Errorf("highWater = %d, %v, want %d", got, err, 45000<<10)
		}
		if _, err := p.highWater(8); err == nil {
			t.Error("a kernel thread has resident memory")
		}
	})
	t.Run("memory and model", func(t *testing.T) {
		if got, err := p.memory(); err != nil || got != 24000000<<10 {
			t.Errorf("memory = %d, %v", got, err)
		}
		if got, err := p.model(); err != nil || got != "AMD EPYC" {
			t.Errorf("model = %q, %v", got, err)
		}
	})
	t.Run("udpDrops adds up the sockets of a port", func(t *testing.T) {
		for port, want := range map[int]uint64{0x2364: 20, 0x2365: 5, 9: 0} {
			if got, err := p.udpDrops(port); err != nil || got != want {
				t.Errorf("udpDrops(%#x) = %d, %v, want %d", port, got, err, want)
			}
		}
	})
}

func TestMeter_costs(t *testing.T) {
	m := meter{names: []string{"tap", "PostgreSQL"}, pids: []int{1, 2}}
	at := time.Unix(1000, 0)
	from := reading{at: at, programs: []time.Duration{time.Second, 0}, own: 2 * time.Second,
		machine: machineTime{cores: 2, busy: 100 * time.Second}}
	to := reading{at: at.Add(10 * time.Second), programs: []time.Duration{4 * time.Second, 6 * time.Second}, own: 3 * time.Second,
		machine: machineTime{cores: 2, busy: 112 * time.Second, stolen: time.Second}}
	got := m.costs(from, to, 1_000_000)
	if got.Programs[0] != (Cost{"tap", 3, 3}) || got.Programs[1] != (Cost{"PostgreSQL", 6, 6}) {
		t.Errorf("programs = %+v", got.Programs)
	}
	if got.Together != 9 || got.Own.CPU != 1 {
		t.Errorf("together = %v, own = %v, want 9 and 1", got.Together, got.Own.CPU)
	}
	if got.Others != 10 || got.Stolen != 5 { // 12 s were used, 10 of them by us, of 20 s that there are
		t.Errorf("others = %v %%, stolen = %v %%, want 10 and 5", got.Others, got.Stolen)
	}
}

func TestHostProc_knowsThisProcess(t *testing.T) {
	if kernel() == "" || hostProc().FS == nil {
		t.Fatal("no kernel")
	}
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("no /proc on this system")
	}
	all, err := hostProc().cpu(os.Getpid())
	if err != nil || len(all) != 1 {
		t.Fatalf("cpu = %v, %v", all, err)
	}
	if m := thisMachine(); m.CPU == "" || m.Cores < 1 || m.Kernel == "" {
		t.Errorf("this machine is %+v", m)
	}
}
