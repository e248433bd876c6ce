package store_test

import (
	"context"
	"testing"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func TestFetch_aSmallLimitDoesNotMakeManyQueries(t *testing.T) {
	const stored = 5000 // rows, none of them with the port
	queries, sent := 0, 0
	fetch := store.Fetch(func(_ context.Context, p store.Page) ([]store.Row, error) {
		queries++
		page := make([]store.Row, min(p.Size, stored-sent))
		for i := range page {
			sent++
			page[i] = store.Row{Time: time.Unix(int64(-sent), 0), FromIP: []byte("udp:192.0.2.1:5060")}
		}
		return page, nil
	})
	for _, err := range fetch.Rows(t.Context(), trace.Query{Port: 5070, Limit: 1}) {
		t.Errorf("found a row, %v", err)
	}
	if queries > 11 {
		t.Errorf("%d queries for %d rows, want pages of 500", queries, stored)
	}
}
