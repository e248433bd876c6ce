package sqlite

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// dialect is SQLite's in the query for rows.
func dialect() *store.Dialect {
	return &store.Dialect{
		Columns: `t.id, t.time_stamp, t.time_us, t.callid, t.traced_user, t.msg, t.method, t.status, t.fromip, t.toip, t.fromtag, t.totag,
 t.direction, t.event_id, t.node, t.transport, t.cseq, t.correlation_id, t.from_user, t.to_user, t.ruri_user`,
		Param:   "?",
		Fence:   " LIMIT -1",
		Time:    func(t time.Time) any { return t.UnixMicro() },
		EventID: func(id trace.ID) any { return id[:] },
	}
}

// page runs the query of one page.
func (s *Store) page(ctx context.Context, p store.Page) ([]store.Row, error) {
	table := p.Query.Table
	if table == "" {
		table = s.table
	}
	if err := store.CheckTable(table); err != nil {
		return nil, err
	}
	query, args := p.SQL(dialect(), `"`+table+`"`)
	rows, err := s.readers.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, s.wrap(fmt.Errorf("table %s: %w", table, err))
	}
	defer rows.Close()
	list := make([]store.Row, 0, p.Size)
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return nil, s.wrap(fmt.Errorf("table %s: %w", table, err))
		}
		list = append(list, r)
	}
	return list, s.wrap(rows.Err())
}

// scan reads a row of the dialect's columns.
func scan(rows *sql.Rows) (store.Row, error) {
	var r store.Row
	var us, timeUS int64
	var direction, transport string
	var id []byte
	err := rows.Scan(&r.ID, &us, &timeUS, &r.CallID, &r.TracedUser, &r.Msg, &r.Method, &r.Status, &r.FromIP, &r.ToIP, &r.FromTag, &r.ToTag,
		&direction, &id, &r.Node, &transport, &r.CSeq, &r.CorrelationID, &r.FromUser, &r.ToUser, &r.RURIUser)
	if err != nil {
		return store.Row{}, err
	}
	r.Time = time.UnixMicro(us).UTC()
	r.Direction, _ = trace.ParseDirection(direction)
	r.Transport, _ = trace.ParseTransport(transport)
	copy(r.EventID[:], id)
	return r, nil
}
