package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// Store is a PostgreSQL database of trace rows. It is a [store.Store].
type Store struct {
	options store.Options
	server  string // for messages: host:port/database
	user    string
	log     *slog.Logger
	metrics *store.Metrics
	pool    *pgxpool.Pool
	tables  *tables
	now     func() time.Time

	// As many batches as connections may write: who takes one writes.
	batches chan *batch

	prepareOnce sync.Mutex // held while the schema is looked at
	prepared    bool
	readOnly    bool
}

// besides the connections that write, for readers and for making partitions.
const extraConnections = 2

const connectTimeout = 5 * time.Second

// Open makes a store of the database that the URL address names. It connects to nothing
// yet: the schema is made with the first Write, Ready or Maintain, unless
// o.NoSchema says otherwise or the role may not.
func Open(address string, o store.Options) (*Store, error) {
	o, err := o.WithDefaults()
	if err != nil {
		return nil, err
	}
	config, err := parse(address)
	if err != nil {
		return nil, err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	config.MaxConns = int32(o.Connections + extraConnections)
	// One round trip for a batch, and after a restart of the server none fails
	// on a connection that was open before.
	config.ShouldPing = func(context.Context, pgxpool.ShouldPingParams) bool { return true }
	pool, err := pgxpool.NewWithConfig(context.Background(), config)
	if err != nil {
		return nil, fmt.Errorf("postgres %s: %w", server(config.ConnConfig), err)
	}
	s := &Store{
		options:  o,
		server:   server(config.ConnConfig),
		user:     config.ConnConfig.User,
		log:      o.Log,
		metrics:  store.NewMetrics(o.Registerer),
		pool:     pool,
		tables:   newTables(o.Table),
		now:      time.Now,
		batches:  make(chan *batch, o.Connections),
		prepared: o.NoSchema,
	}
	for range o.Connections {
		s.batches <- newBatch(o)
	}
	return s, nil
}

// OpenReader makes a store for reading only: Write refuses.
func OpenReader(address string, o store.Options) (*Store, error) {
	o.NoSchema = true
	s, err := Open(address, o)
	if err != nil {
		return nil, err
	}
	s.readOnly = true
	return s, nil
}

// parse reads a URL.
func parse(text string) (*pgxpool.Config, error) {
	config, err := pgxpool.ParseConfig(text)
	if err != nil {
		return nil, parseError(text, err)
	}
	c := config.ConnConfig
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectTimeout
	}
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "siptrace"
	}
	return config, nil
}

// parseError says what is wrong with a URL, without any part of it that may
// be the password. It does not wrap err, which holds all of it.
func parseError(text string, err error) error {
	if _, bad := url.Parse(text); bad != nil {
		return errors.New("postgres: this is no URL; write postgres://USER:PASSWORD@HOST:PORT/DATABASE," +
			" with what is neither letter nor digit in the password as %XX")
	}
	what := err.Error() // cannot parse `URL`: what
	if i := strings.LastIndex(what, "`: "); i >= 0 {
		what = what[i+len("`: "):]
	}
	return errors.New("postgres: " + what)
}

func server(c *pgx.ConnConfig) string {
	return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port))) + "/" + c.Database
}

// Find is what [store.Store] promises.
func (s *Store) Find(ctx context.Context, q trace.Query) iter.Seq2[trace.Event, error] {
	return store.Fetch(s.page).Find(ctx, q)
}

// Rows is what [store.Store] promises.
func (s *Store) Rows(ctx context.Context, q trace.Query) iter.Seq2[store.Row, error] {
	return store.Fetch(s.page).Rows(ctx, q)
}

// Ready is what [store.Store] promises.
func (s *Store) Ready(ctx context.Context) error {
	if err := s.prepare(ctx); err != nil {
		return err
	}
	var standby bool
	var found map[string]entry
	var absent []string
	err := s.with(ctx, func(c *pgx.Conn) (err error) {
		if err = c.QueryRow(ctx, `SELECT pg_is_in_recovery()`).Scan(&standby); err != nil || standby {
			return err
		}
		if found, err = look(ctx, c, []string{s.options.Table}); err == nil {
			absent, err = missingParts(ctx, c)
			absent = slices.DeleteFunc(absent, func(part string) bool { return !slices.Contains(partitioning, part) })
		}
		return err
	})
	switch e := found[s.options.Table]; {
	case err != nil:
		return err
	case standby:
		return fmt.Errorf("postgres %s: this is a standby, it takes no rows", s.server)
	case e.table == nil:
		return s.outage(e)
	case e.table.partitioned && e.table.layout == own && len(absent) > 0: // then no new day can begin
		return fmt.Errorf("postgres %s: missing: %s; ctl schema apply makes what is missing", s.server, strings.Join(absent, ", "))
	}
	return nil
}

// partitioning is what new partitions need.
var partitioning = []string{"table trace_tables", "function siptrace_add_partition"}

// outage says that the table of events that name none cannot be used, and what to do.
func (s *Store) outage(e entry) error {
	failure := &Error{Server: s.server, Class: store.ClassSchema, Err: e.err, what: e.err.Error()}
	switch {
	case e.absent && s.options.Table == store.DefaultTable:
		failure.what += "; ctl schema apply makes it"
	case e.absent:
		failure.what += "; ctl schema create-table " + s.options.Table + " makes it"
	}
	return failure
}

// Close waits for the Writes in progress and closes all connections.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}

// with runs do on a connection of the pool, and wraps its error.
func (s *Store) with(ctx context.Context, do func(c *pgx.Conn) error) error {
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return s.explain(err)
	}
	defer c.Release()
	return s.explain(do(c.Conn()))
}

// prepare brings the schema to the newest version, once, if it is this
// store's to do. It never makes a table again that somebody has dropped: who
// did may want it gone. A schema that cannot be applied is left as it is: the tables
// that events go to are looked at anyway.
func (s *Store) prepare(ctx context.Context) error {
	s.prepareOnce.Lock()
	defer s.prepareOnce.Unlock()
	if s.prepared {
		return nil
	}
	schema := newSchema(s.pool.Config().ConnConfig)
	status, err := schema.Status(ctx)
	if err == nil && status.Version < status.Newest {
		if err = schema.migrate(ctx); err == nil {
			s.log.Info("schema applied", "server", s.server, "version", status.Newest)
		}
	}
	var e *Error
	if errors.As(err, &e) && (e.Class == store.ClassConnection || e.Class == store.ClassResources || e.login) {
		return err
	}
	if err != nil {
		s.log.Warn("schema not applied, going on with the tables as they are", "server", s.server, "err", err)
	}
	s.prepared = true
	return nil
}
