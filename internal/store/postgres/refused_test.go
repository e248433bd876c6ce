package postgres_test

import (
	"errors"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/seed-452fa805/siptrace/internal/store"
	"github.com/seed-452fa805/siptrace/internal/store/postgres"
	"github.com/seed-452fa805/siptrace/internal/store/storetest"
	"github.com/seed-452fa805/siptrace/pkg/trace"
)

// A trigger refuses a row only when it gets to the table, where no error names
// its line: the rows have to be halved.
func TestStore_rowsRefusedByATrigger(t *testing.T) {
	storetest.Refused(t, func(t *testing.T, o store.Options) storetest.Database {
		db := open(t, o)
		db.Refuse = func(t *testing.T, table, callID string) {
			db.Exec(t, fmt.Sprintf(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
				BEGIN IF new.callid = '%s' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN new; END $$`, callID))
			db.Exec(t, fmt.Sprintf(`CREATE TRIGGER refuse BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION refuse()`, table))
		}
		return db
	})
}

func TestWrite_waitsForALockNoLongerThanTheServerSays(t *testing.T) {
	address := newDatabase(t)
	applySchema(t, address)
	impatient := change(t, address, func(u *url.URL) {
		q := u.Query()
		q.Set("lock_timeout", "50")
		u.RawQuery = q.Encode()
	})
	s := openStore(t, impatient, store.Options{})
	write(t, s, at(today()))

	c, err := pgx.Connect(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	if _, err := c.Exec(t.Context(), `BEGIN; LOCK TABLE sip_trace IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	events := []trace.Event{at(today()), at(today().Add(time.Second))}
	var e *postgres.Error
	if err := s.Write(t.Context(), events); !errors.As(err, &e) || e.Class != store.ClassConflict {
		t.Errorf("Write = %v, want a conflict", err)
	}
	if _, err := c.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	write(t, s, events...)
	if got := count(t, s, trace.Query{}); got != 2 {
		t.Errorf("%d events, want 2", got)
	}
}
