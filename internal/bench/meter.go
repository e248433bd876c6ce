package bench

import (
	"os"
	"runtime"
	"time"
)

// A meter reads what the programs of a run cost.
type meter struct {
	proc  procfs
	names []string // of the programs
	pids  []int
}

func (m *meter) add(name string, pid int) {
	m.names, m.pids = append(m.names, name), append(m.pids, pid)
}

// A reading is everything's CPU time at a moment.
type reading struct {
	at       time.Time
	programs []time.Duration
	own      time.Duration
	machine  machineTime
}

func (m *meter) read() (reading, error) {
	r := reading{at: time.Now()}
	var err error
	if r.machine, err = m.proc.machine(); err != nil {
		return r, err
	}
	if r.programs, err = m.proc.cpu(m.pids...); err != nil {
		return r, err
	}
	r.own, err = m.proc.own(os.Getpid())
	return r, err
}

// A Cost is what a program has used.
type Cost struct {
	Name     string  `json:"name"`
	CPU      float64 `json:"cpu_seconds"`
	PerEvent float64 `json:"cpu_us_per_event"`
}

func cost(name string, used time.Duration, events uint64) Cost {
	c := Cost{Name: name, CPU: used.Seconds()}
	if events > 0 {
		c.PerEvent = float64(used.Microseconds()) / float64(events)
	}
	return c
}

// Costs are what a run has used between two readings.
type Costs struct {
	Programs []Cost  `json:"programs"`
	Together float64 `json:"cpu_us_per_event"` // of all programs
	Own      Cost    `json:"own"`              // of this process, which is not among them
	Others   float64 `json:"others_percent"`   // of the machine's CPU time, used by nobody of us
	Stolen   float64 `json:"stolen_percent"`   // of the machine's CPU time, taken by its host
}

// costs spreads what was used between two readings over events.
func (m *meter) costs(from, to reading, events uint64) Costs {
	var c Costs
	var all time.Duration
	for i, name := range m.names {
		used := to.programs[i] - from.programs[i]
		c.Programs = append(c.Programs, cost(name, used, events))
		all += used
	}
	c.Together = cost("", all, events).PerEvent
	c.Own = cost("this program", to.own-from.own, events)
	capacity := to.at.Sub(from.at).Seconds() * float64(to.machine.cores)
	others := to.machine.busy - from.machine.busy - all - (to.own - from.own)
	c.Others = 100 * max(0, others.Seconds()) / capacity // the kernel counts in steps
	c.Stolen = 100 * (to.machine.stolen - from.machine.stolen).Seconds() / capacity
	return c
}

// A Machine is where a run was.
type Machine struct {
	CPU      string `json:"cpu"`
	Cores    int    `json:"cores"`
	Kernel   string `json:"kernel"`
	Go       string `json:"go"`
	NATS     string `json:"nats,omitempty"`
	Database string `json:"database,omitempty"`
}

// thisMachine describes it; what cannot be found out is left empty.
func thisMachine() Machine {
	model, _ := hostProc().model()
	time, _ := hostProc().machine()
	return Machine{CPU: model, Cores: time.cores, Kernel: kernel(), Go: runtime.Version()}
}
