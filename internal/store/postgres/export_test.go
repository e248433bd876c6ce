package postgres

import "time"

// SetClock makes a store that nobody uses yet go by another clock.
func (s *Store) SetClock(now func() time.Time) { s.now = now }

// SetClock makes a schema go by another clock.
func (s *Schema) SetClock(now func() time.Time) { s.now = now }
