package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// dialect is PostgreSQL's in the query for rows.
func dialect() *store.Dialect {
	return &store.Dialect{
		Columns: `t.id, t.time_stamp, t.callid, t.traced_user, t.msg, t.method, t.status, t.fromip, t.toip, t.fromtag, t.totag,
 t.direction, t.event_id, t.node, t.transport, t.cseq, t.correlation_id, t.from_user, t.to_user, t.ruri_user`,
		Param:   "$",
		Fence:   " OFFSET 0",
		Time:    func(t time.Time) any { return t },
		EventID: func(id trace.ID) any { return [16]byte(id) },
	}
}

// asOwn presents a table of Kamailio's as one of siptrace's. What stands in
// for the event's id is its number there: the same each time.
const asOwn = `(SELECT id::bigint AS id, time_stamp AT TIME ZONE 'UTC' + time_us * interval '1 microsecond' AS time_stamp,
 callid::text, traced_user::text, convert_to(msg, 'UTF8') AS msg, method::text, status::text, fromip::text, toip::text,
 fromtag::text, totag::text, direction::text, lpad(to_hex(id), 32, '0')::uuid AS event_id, '' AS node, '' AS transport,
 0::bigint AS cseq, '' AS correlation_id, '' AS from_user, '' AS to_user, '' AS ruri_user FROM %s)`

// page runs the query of one page.
func (s *Store) page(ctx context.Context, p store.Page) ([]store.Row, error) {
	name := p.Query.Table
	if name == "" {
		name = s.options.Table
	}
	if err := store.CheckTable(name); err != nil {
		return nil, err
	}
	t, err := s.readable(ctx, name)
	if err != nil {
		return nil, err
	}
	source := t.ident
	if t.layout == kamailio {
		source = fmt.Sprintf(asOwn, t.ident)
	}
	query, args := p.SQL(dialect(), source)
	list := make([]store.Row, 0, p.Size)
	err = s.with(ctx, func(c *pgx.Conn) error {
		rows, err := c.Query(ctx, query, args...)
		if err == nil {
			list, err = pgx.AppendRows(list, rows, scan)
		}
		return err
	})
	if judge(err) == stale {
		s.tables.forget(name)
	}
	if t.layout == kamailio {
		for i := range list {
			list[i].Msg = plain(list[i].Msg)
		}
	}
	return list, err
}

// readable returns a table to read from.
func (s *Store) readable(ctx context.Context, name string) (*table, error) {
	e, ok := s.tables.known(name)
	if !ok || e.table == nil {
		err := s.with(ctx, func(c *pgx.Conn) error {
			found, err := s.tables.load(ctx, c, []string{name}, false)
			e = found[name]
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if e.table == nil {
		return nil, fmt.Errorf("postgres %s: %w", s.server, e.err)
	}
	return e.table, nil
}

// scan reads a row of the dialect's columns.
func scan(row pgx.CollectableRow) (store.Row, error) {
	var r store.Row
	var direction, transport string
	var id [16]byte
	err := row.Scan(&r.ID, &r.Time, &r.CallID, &r.TracedUser, &r.Msg, &r.Method, &r.Status, &r.FromIP, &r.ToIP, &r.FromTag, &r.ToTag,
		&direction, &id, &r.Node, &transport, &r.CSeq, &r.CorrelationID, &r.FromUser, &r.ToUser, &r.RURIUser)
	r.Time = r.Time.UTC()
	r.Direction, _ = trace.ParseDirection(direction)
	r.Transport, _ = trace.ParseTransport(transport)
	r.EventID = id
	return r, err
}
