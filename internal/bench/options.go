package bench

import "time"

// Place says where a run finds its programs and where it writes.
type Place struct {
	Bin   string `help:"Folder with tap, db-writer and nats-server." default:"bin" type:"path" env:"-" placeholder:"DIR"`
	Dir   string `help:"Folder on a disk for what the run writes; it is removed afterwards. Default: the temporary folder." type:"path" env:"-" placeholder:"DIR"`
	Cores int    `help:"CPU cores for the programs that are measured." default:"2" env:"-" placeholder:"N"`

	SyncAlways bool `help:"NATS acknowledges what is on disk, not only what is in the page cache." env:"-"`
}

// PipelineOptions say what [Pipeline] does.
type PipelineOptions struct {
	Place
	Rate     int           `help:"Events a second." default:"80000" env:"-" placeholder:"N"`
	Duration time.Duration `help:"How long to send." default:"20s" env:"-" placeholder:"DURATION"`
	Store    string        `help:"postgres or sqlite: a new database; or the URL of one that exists, where the rows stay." default:"postgres" env:"-" placeholder:"STORE"`
}

// WriterOptions say what [Writer] does.
type WriterOptions struct {
	Place
	Rows     int           `help:"Events that wait in the stream when db-writer starts." default:"5000000" env:"-" placeholder:"N"`
	Duration time.Duration `help:"Time after which the rate is taken a first time." default:"20s" env:"-" placeholder:"DURATION"`
	Store    string        `help:"postgres or sqlite: a new database; or the URL of one that exists, where the rows stay." default:"postgres" env:"-" placeholder:"STORE"`
}

// SendOptions say what [Send] does.
type SendOptions struct {
	To       string        `help:"hep+udp://HOST:PORT or hep+tcp://HOST:PORT." default:"hep+udp://127.0.0.1:9060" env:"-" placeholder:"URL"`
	Rate     int           `help:"Events a second." default:"1000" env:"-" placeholder:"N"`
	Duration time.Duration `help:"How long to send." default:"20s" env:"-" placeholder:"DURATION"`
}

// SinkOptions say what [Sink] does.
type SinkOptions struct {
	Listen   string        `help:"hep+udp://HOST:PORT, hep+tcp://HOST:PORT, with the options of a tap's --in." default:"hep+udp://127.0.0.1:9062" env:"-" placeholder:"URL"`
	Duration time.Duration `help:"End after this time; before, when interrupted." default:"10m" env:"-" placeholder:"DURATION"`
	Idle     time.Duration `help:"End when nothing came for so long after the first event; 0 goes on." default:"0s" env:"-" placeholder:"DURATION"`
}
