package sqlite

import (
	"context"
	"time"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Write is what [store.Store] promises.
func (s *Store) Write(ctx context.Context, events []trace.Event) error {
	if len(events) == 0 {
		return nil
	}
	start := time.Now()
	w, err := s.take(ctx)
	if err != nil {
		return err
	}
	defer s.put(w)
	out, err := w.write(ctx, events)
	if err != nil {
		s.metrics.Failed(class(err))
		return s.wrap(err)
	}
	s.metrics.Committed(out.rows, out.duplicates, out.rejections.Rejected(), start)
	return out.rejections.Err()
}
