package bus

import (
	"cmp"
	"slices"
)

// together is the status of several streams as if they were one. Sequences are
// each stream's own and stay out of it.
func together(shards []StreamStatus) StreamStatus {
	if len(shards) == 1 {
		return shards[0]
	}
	all := shards[0]
	all.Name, all.FirstSeq, all.LastSeq, all.Shards = StreamName, 0, 0, shards
	for _, s := range shards[1:] {
		all.Frames += s.Frames
		all.Bytes += s.Bytes
		if !s.FirstTime.IsZero() && (all.FirstTime.IsZero() || s.FirstTime.Before(all.FirstTime)) {
			all.FirstTime = s.FirstTime
		}
		if s.LastTime.After(all.LastTime) {
			all.LastTime = s.LastTime
		}
		if all.MaxBytes >= 0 {
			all.MaxBytes += s.MaxBytes
		}
		if s.MaxBytes < 0 {
			all.MaxBytes = s.MaxBytes
		}
	}
	return all
}

// joined puts the consumers of one name in several streams together: what they
// have to do is added up, of what may be lost the nearest counts.
func joined(shards [][]ConsumerStatus) []ConsumerStatus {
	if len(shards) == 1 {
		return shards[0]
	}
	var all []ConsumerStatus
	for _, st := range slices.Concat(shards...) {
		st.Delivered, st.AckFloor = 0, 0 // they are each stream's own
		i := slices.IndexFunc(all, func(s ConsumerStatus) bool { return s.Name == st.Name })
		if i < 0 {
			all = append(all, st)
			continue
		}
		one := &all[i]
		one.Pending += st.Pending
		one.AckPending += st.AckPending
		one.Redelivered += st.Redelivered
		one.Waiting += st.Waiting
		one.Missed += st.Missed
		one.Streams += st.Streams
		one.OldestUnread = max(one.OldestUnread, st.OldestUnread)
		one.TimeLeft = min(one.TimeLeft, st.TimeLeft)
		if one.SpaceLeft < 0 || st.SpaceLeft >= 0 && st.SpaceLeft < one.SpaceLeft {
			one.SpaceLeft = st.SpaceLeft
		}
		if st.LastActive.After(one.LastActive) {
			one.LastActive = st.LastActive
		}
		one.Paused = one.Paused || st.Paused
	}
	slices.SortFunc(all, func(a, b ConsumerStatus) int { return cmp.Compare(a.Name, b.Name) })
	return all
}
