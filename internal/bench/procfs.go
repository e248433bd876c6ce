package bench

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// procfs is what the kernel tells about processes: a mounted /proc.
type procfs struct{ fs.FS }

func hostProc() procfs { return procfs{os.DirFS("/proc")} }

// clockTick is the unit of CPU times in /proc (USER_HZ), the same on every
// Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// errFormat means that a file of /proc is not as expected.
var errFormat = errors.New("unknown format")

// A stat is a line of /proc/PID/stat, as far as it matters here.
type stat struct {
	pid, parent int
	cpu         time.Duration // its own
	reaped      time.Duration // of its children that have ended
}

// parseStat reads /proc/PID/stat: pid (name) state ppid …; a name may hold
// anything, so the fields are counted from its end.
func parseStat(line []byte) (stat, error) {
	open, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return stat{}, errFormat
	}
	const parent, utime, stime, cutime, cstime = 1, 11, 12, 13, 14
	f := strings.Fields(string(line[end+1:]))
	if len(f) <= cstime {
		return stat{}, errFormat
	}
	var n [cstime + 1]int64
	for _, i := range []int{parent, utime, stime, cutime, cstime} {
		var err error
		if n[i], err = strconv.ParseInt(f[i], 10, 64); err != nil {
			return stat{}, errFormat
		}
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:open])))
	if err != nil {
		return stat{}, errFormat
	}
	return stat{
		pid:    pid,
		parent: int(n[parent]),
		cpu:    time.Duration(n[utime]+n[stime]) * clockTick,
		reaped: time.Duration(n[cutime]+n[cstime]) * clockTick,
	}, nil
}

// stats reads every process. One that ends meanwhile is left out: its time is
// then among its parent's.
func (p procfs) stats() ([]stat, error) {
	dirs, err := fs.ReadDir(p, ".")
	if err != nil {
		return nil, err
	}
	var list []stat
	for _, d := range dirs {
		if _, err := strconv.Atoi(d.Name()); err != nil {
			continue
		}
		line, err := fs.ReadFile(p, d.Name()+"/stat")
		if err != nil {
			continue
		}
		s, err := parseStat(line)
		if err != nil {
			return nil, fmt.Errorf("/proc/%s/stat: %w", d.Name(), err)
		}
		list = append(list, s)
	}
	return list, nil
}

// cpu returns the CPU time that each of the processes has used so far with
// all that it has started, the ended ones included.
func (p procfs) cpu(roots ...int) ([]time.Duration, error) {
	list, err := p.stats()
	if err != nil {
		return nil, err
	}
	children := make(map[int][]stat)
	byPID := make(map[int]stat)
	for _, s := range list {
		children[s.parent] = append(children[s.parent], s)
		byPID[s.pid] = s
	}
	var sum func(s stat) time.Duration
	sum = func(s stat) time.Duration {
		t := s.cpu + s.reaped
		for _, c := range children[s.pid] {
			t += sum(c)
		}
		return t
	}
	times := make([]time.Duration, len(roots))
	for i, pid := range roots {
		s, ok := byPID[pid]
		if !ok {
			return nil, fmt.Errorf("process %d has ended", pid)
		}
		times[i] = sum(s)
	}
	return times, nil
}

// own returns the CPU time that a process itself has used so far.
func (p procfs) own(pid int) (time.Duration, error) {
	line, err := fs.ReadFile(p, strconv.Itoa(pid)+"/stat")
	if err != nil {
		return 0, err
	}
	s, err := parseStat(line)
	if err != nil {
		return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	return s.cpu, nil
}

// machineTime is what all cores together have done since the machine was started.
type machineTime struct {
	cores        int
	busy, stolen time.Duration
}

// machine reads it.
func (p procfs) machine() (machineTime, error) {
	b, err := fs.ReadFile(p, "stat")
	if err != nil {
		return machineTime{}, err
	}
	var t machineTime
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || !strings.HasPrefix(f[0], "cpu"):
		case f[0] == "cpu":
			err = t.add(f)
		default:
			t.cores++
		}
	}
	if err != nil || t.cores == 0 {
		return machineTime{}, fmt.Errorf("/proc/stat: %w", errFormat)
	}
	return t, nil
}

// add reads the line of all cores.
func (t *machineTime) add(f []string) error {
	const user, nice, system, irq, softirq, steal = 1, 2, 3, 6, 7, 8
	if len(f) <= steal {
		return errFormat
	}
	for _, i := range []int{user, nice, system, irq, softirq, steal} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return errFormat
		}
		if i == steal {
			t.stolen += time.Duration(n) * clockTick
		} else {
			t.busy += time.Duration(n) * clockTick
		}
	}
	return nil
}

// highWater is the most memory that a process has had resident, in bytes.
func (p procfs) highWater(pid int) (int64, error) {
	return p.kilobytes(strconv.Itoa(pid)+"/status", "VmHWM:")
}

// memory is how much the machine has, in bytes.
func (p procfs) memory() (int64, error) {
	return p.kilobytes("meminfo", "MemTotal:")
}

// kilobytes finds a line like "VmHWM:  1234 kB" in a file and returns bytes.
func (p procfs) kilobytes(file, name string) (int64, error) {
	b, err := fs.ReadFile(p, file)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if value, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				break
			}
			return n << 10, nil
		}
	}
	return 0, fmt.Errorf("/proc/%s: %s %w", file, name, errFormat)
}

// model is the name of the processor.
func (p procfs) model() (string, error) {
	b, err := fs.ReadFile(p, "cpuinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value), nil
		}
	}
	return "", fmt.Errorf("/proc/cpuinfo: %w", errFormat)
}

// udpDrops is how many datagrams the kernel has dropped that came for the
// sockets at a port, since they were opened.
func (p procfs) udpDrops(port int) (uint64, error) {
	var drops uint64
	for _, name := range []string{"net/udp", "net/udp6"} {
		f, err := p.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6
		}
		if err != nil {
			return 0, err
		}
		n, err := dropsOf(bufio.NewScanner(f), port)
		_ = f.Close()
		if err != nil {
			return 0, fmt.Errorf("/proc/%s: %w", name, err)
		}
		drops += n
	}
	return drops, nil
}

// dropsOf reads the last column of the sockets at a port; the second column
// holds the local address as HEX:PORT.
func dropsOf(lines *bufio.Scanner, port int) (uint64, error) {
	lines.Scan() // the heads of the columns
	var drops uint64
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 13 {
			return 0, errFormat
		}
		_, local, _ := strings.Cut(f[1], ":")
		at, err := hex.DecodeString(local)
		if err != nil || len(at) != 2 {
			return 0, errFormat
		}
		if int(at[0])<<8|int(at[1]) != port {
			continue
		}
		n, err := strconv.ParseUint(f[len(f)-1], 10, 64)
		if err != nil {
			return 0, errFormat
		}
		drops += n
	}
	return drops, lines.Err()
}
