package ctl

import (
	"fmt"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
	"github.com/seed-452fa805/siptrace/internal/bus"
)

// StretchFlags say which part of the stream is replayed. The capture time of
// an event is not the time at which it was stored: a tap may have kept it while
// NATS was away, and its clock may be wrong. So more of the stream is read than
// the range is long.
type StretchFlags struct {
	Since   app.Duration `help:"Only what was captured within this time: 15m, 1h30m, 7d." env:"-" placeholder:"DURATION" xor:"range"`
	From    string       `help:"Only what was captured then or later: 2026-11-22T08:00:00Z, \"2026-11-22 08:00\", 08:00 (today); without a zone it is local time." env:"-" placeholder:"TIME" xor:"range"`
	ToTime  string       `help:"Only what was captured before, as --from." env:"-" placeholder:"TIME"`
	Slack   app.Duration `help:"How much earlier and later than the range frames are looked at by the time they were stored: as long as NATS or a tap may have been away." default:"10m" env:"-" placeholder:"DURATION"`
	Shard   *int         `help:"Only this one of the streams, where events are spread over several: 0 is the first." env:"-" placeholder:"K"`
	FromSeq uint64       `help:"Begin with this frame of the stream; of which, --shard says where there are several." env:"-" placeholder:"N"`
	ToSeq   uint64       `help:"End with this frame of the stream." env:"-" placeholder:"N"`
}

// bounds are the ends of the range in capture time; zero is without bound.
func (f *StretchFlags) bounds(now time.Time) (from, to time.Time, err error) {
	if f.Since > 0 {
		from = now.Add(-time.Duration(f.Since))
	}
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
	if f.ToSeq > 0 && f.ToSeq < f.FromSeq {
		return from, to, app.Usagef("--to-seq %d is before --from-seq %d", f.ToSeq, f.FromSeq)
	}
	return from, to, nil
}

// frames is what is looked at of the stream for a range of capture time.
func (f *StretchFlags) frames(from, to time.Time) bus.ReplayRange {
	r := bus.ReplayRange{Shard: f.Shard, First: f.FromSeq, Last: f.ToSeq}
	if !from.IsZero() {
		r.Since = from.Add(-time.Duration(f.Slack))
	}
	if !to.IsZero() {
		r.Until = to.Add(time.Duration(f.Slack))
	}
	return r
}

// stretches are the parts of the streams that are replayed, one of each.
type stretches struct {
	all  []bus.Stretch
	done []uint64 // of each: every frame up to this one is done with
}

// begin forgets how far they are done with.
func (s *stretches) begin() {
	s.done = make([]uint64, len(s.all))
	for i, st := range s.all {
		s.done[i] = st.First - 1
	}
}

// frames is how many there are in all.
func (s *stretches) frames() (n uint64) {
	for _, st := range s.all {
		n += st.Frames()
	}
	return n
}

// left is how many of them are not done with.
func (s *stretches) left() (n uint64) {
	for i, st := range s.all {
		st.First = s.done[i] + 1
		n += st.Frames()
	}
	return n
}

// discarded is how many frames the streams have not any more.
func (s *stretches) discarded() (n uint64) {
	for _, st := range s.all {
		n += st.Discarded
	}
	return n
}

// places are how far they are done with, for who goes on there.
func (s *stretches) places() []bus.ReplayPlace {
	places := make([]bus.ReplayPlace, len(s.all))
	for i, st := range s.all {
		places[i] = bus.ReplayPlace{Stream: st.Stream, Created: st.Created, Seq: s.done[i]}
	}
	return places
}

// String is "frames 1 to 300", or of several streams "1,200 frames of 4 streams".
func (s *stretches) String() string {
	if len(s.all) == 1 {
		return fmt.Sprintf("frames %s to %s", count(s.all[0].First), count(s.all[0].Last))
	}
	return fmt.Sprintf("%s of %d streams", counted(s.frames(), "frame"), len(s.all))
}

// where is how far they are done with: "frame 120 of 300".
func (s *stretches) where() string {
	if len(s.all) == 1 {
		return fmt.Sprintf("frame %s of %s", count(s.done[0]), count(s.all[0].Last))
	}
	return fmt.Sprintf("frame %s of %s", count(s.frames()-s.left()), count(s.frames()))
}

// upTo is how far they are done with, for who has to go on.
func (s *stretches) upTo() string {
	if len(s.all) == 1 {
		return fmt.Sprintf("up to frame %d", s.done[0])
	}
	return fmt.Sprintf("%s of %s", count(s.frames()-s.left()), s)
}

// behind is where a position is: "behind frame 300".
func (*stretches) behind(p *bus.ReplayPosition) string {
	if len(p.Places) == 1 {
		return "behind frame " + count(p.Places[0].Seq)
	}
	seqs := make([]string, len(p.Places))
	for i, place := range p.Places {
		seqs[i] = count(place.Seq)
	}
	return fmt.Sprintf("behind frames %s of %d streams", strings.Join(seqs, ", "), len(seqs))
}

// goOn are the flags that go on where it ended.
func (s *stretches) goOn() string {
	if len(s.all) == 1 && s.all[0].Stream == bus.StreamName {
		return fmt.Sprintf("--from-seq %d", s.done[0]+1)
	}
	var each []string
	for i, st := range s.all {
		if s.done[i] < st.Last {
			each = append(each, fmt.Sprintf("--shard %d --from-seq %d", st.Shard, s.done[i]+1))
		}
	}
	if len(each) == 1 {
		return each[0]
	}
	return fmt.Sprintf("each of %s; another time, --resume NAME keeps the places", strings.Join(each, ", "))
}

// why says why there are no frames.
func (s *stretches) why() string {
	var (
		oldest, newest time.Time
		what           = "the stream"
		have           = "has"
	)
	if len(s.all) > 1 {
		what, have = fmt.Sprintf("the %d streams", len(s.all)), "have"
	}
	for _, st := range s.all {
		if !st.Oldest.IsZero() && (oldest.IsZero() || st.Oldest.Before(oldest)) {
			oldest = st.Oldest
		}
		if st.Newest.After(newest) {
			newest = st.Newest
		}
	}
	if oldest.IsZero() {
		return fmt.Sprintf("%s %s no frames", what, have)
	}
	return fmt.Sprintf("%s %s no such frames; what there is was stored from %s to %s", what, have,
		oldest.Local().Format(time.DateTime), newest.Local().Format(time.DateTime))
}
