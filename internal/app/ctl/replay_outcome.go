package ctl

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
)

// An outcome is what a command that moved events has to say at its end.
type outcome struct {
	Target    string         `json:"target,omitempty"`
	FirstSeq  uint64         `json:"first_seq,omitempty"` // of the stream, where there is one: frames from here
	LastSeq   uint64         `json:"last_seq,omitempty"`  // to here are done with
	Shards    []shardOutcome `json:"shards,omitempty"`    // the same of each stream, where there are several
	Frames    int            `json:"frames,omitempty"`
	Read      int            `json:"read"`    // events looked at
	Written   int            `json:"written"` // events that the target has, those it had before included
	Rows      *int           `json:"rows,omitempty"`
	There     *int           `json:"rows_there,omitempty"`
	Bytes     int64          `json:"bytes,omitempty"`
	LeftOut   int            `json:"left_out,omitempty"`  // a rule keeps them from such a target
	NotSIP    int            `json:"not_sip,omitempty"`   // nothing for a capture file
	Cut       int            `json:"cut,omitempty"`       // too long for the format
	Unread    int            `json:"unread,omitempty"`    // messages of the stream that are no frames
	Discarded uint64         `json:"discarded,omitempty"` // frames wanted that the stream has not any more
	Refused   map[string]int `json:"refused,omitempty"`   // events refused for good, by reason
	Seconds   float64        `json:"seconds"`
	Stopped   bool           `json:"stopped,omitempty"` // before the end; next says how to go on
	Census    *census        `json:"census,omitempty"`  // of a dry run

	verb  string // "replayed"
	did   string // what only the target knows
	words string // the reasons of Refused, with the far side's words
	next  string // what to type to go on
}

// A shardOutcome is how far one stream of several is done with.
type shardOutcome struct {
	Shard    int    `json:"shard"`
	Stream   string `json:"stream"`
	FirstSeq uint64 `json:"first_seq"`
	LastSeq  uint64 `json:"last_seq"`
}

// reached puts in how far the streams are done with.
func (o *outcome) reached(s *stretches) {
	if len(s.all) == 1 {
		o.FirstSeq, o.LastSeq = s.all[0].First, s.done[0]
		return
	}
	o.Shards = o.Shards[:0]
	for i, st := range s.all {
		o.Shards = append(o.Shards, shardOutcome{st.Shard, st.Stream, st.First, s.done[i]})
	}
}

// frames are those that were read: "300 frames (1 to 300)".
func (o *outcome) frames() string {
	if n := len(o.Shards); n > 0 {
		return fmt.Sprintf("%s of %d streams", counted(o.Frames, "frame"), n)
	}
	return fmt.Sprintf("%s (%d to %d)", counted(o.Frames, "frame"), o.FirstSeq, o.LastSeq)
}

// take puts in what a chain of sinks has counted.
func (o *outcome) take(s *selection, w *insistent, elapsed time.Duration) {
	o.Read, o.LeftOut, o.Seconds = s.read, s.leftOut, elapsed.Seconds()
	if w == nil {
		o.Census = s.census
		return
	}
	o.Written = w.written
	_, o.words = w.refusals()
	for reason, r := range w.refused {
		if o.Refused == nil {
			o.Refused = make(map[string]int)
		}
		o.Refused[reason] = r.count
	}
}

// tell says it all, and returns the error that the command ends with.
func (o *outcome) tell(env *Env, asJSON bool) error {
	if asJSON {
		if err := json.NewEncoder(env.Stdout).Encode(o); err != nil {
			return err
		}
	} else {
		o.print(env.Stderr)
	}
	return o.exit()
}

// exit is the error that a command ends with when all has been said.
func (o *outcome) exit() error {
	if o.Stopped || len(o.Refused) > 0 || o.Discarded > 0 {
		return leave(app.ExitFailed)
	}
	return nil
}

func (o *outcome) print(w io.Writer) {
	elapsed := time.Duration(o.Seconds * float64(time.Second))
	unit := time.Millisecond
	if elapsed > 10*time.Second {
		unit = time.Second
	}
	line := fmt.Sprintf("%s %s", o.verb, counted(o.Written, "event"))
	if o.Read > o.Written { // a part of a batch is written before it counts as read
		line += " of " + count(o.Read)
	}
	if o.Frames > 0 {
		line += " from " + o.frames()
	}
	line += fmt.Sprintf(" in %v", elapsed.Round(unit))
	if o.did != "" {
		line += ": " + o.did
	}
	fmt.Fprintln(w, line)
	for _, note := range o.notes() {
		fmt.Fprintln(w, note)
	}
}

// notes are what somebody should know besides.
func (o *outcome) notes() []string {
	var notes []string
	note := func(n int, format string, args ...any) {
		if n > 0 {
			notes = append(notes, fmt.Sprintf(format, args...))
		}
	}
	note(o.LeftOut, "%s left out: a rule keeps them from such a target; --all-events takes them too", counted(o.LeftOut, "event"))
	note(o.NotSIP, "%s left out: no SIP; hep:, text: and json: take them too", counted(o.NotSIP, "event"))
	note(o.Cut, "%s cut: too long for the format; text: and json: have them whole", counted(o.Cut, "message"))
	note(o.Unread, "%s of the stream left out: no frame", counted(o.Unread, "message"))
	note(int(o.Discarded), "%s missing: the stream had discarded them before they were read", counted(o.Discarded, "frame"))
	note(len(o.Refused), "refused for good: %s", o.words)
	if o.Stopped {
		notes = append(notes, strings.TrimSuffix("stopped before the end; "+o.next, "; "))
	}
	return notes
}
