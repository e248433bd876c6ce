-- +goose Up

-- +goose StatementBegin
DO $$
BEGIN
  IF EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = current_schema() AND c.relname = 'sip_trace' AND c.relkind IN ('r', 'p')
               AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'event_id')) THEN
    RAISE EXCEPTION 'table "sip_trace" is there already and has other columns than siptrace''s' USING ERRCODE = 'duplicate_table';
  END IF;
END $$;
-- +goose StatementEnd

-- One row for each traced message, and one more for each traced user of it.
-- The columns up to direction are those of Kamailio's sip_trace.
CREATE TABLE IF NOT EXISTS sip_trace (
  id             bigint      NOT NULL,             -- milliseconds of capture and 16 bits of digest; not unique
  time_stamp     timestamptz NOT NULL,             -- time of capture, with microseconds
  time_us        integer     NOT NULL DEFAULT 0,   -- its microseconds again
  callid         text        COLLATE "C" NOT NULL DEFAULT '',
  traced_user    text        COLLATE "C" NOT NULL DEFAULT '',  -- '' in the row that stands for the message itself
  msg            bytea       NOT NULL,             -- the message, byte for byte
  method         text        NOT NULL DEFAULT '',  -- of the request, or of a reply's CSeq; hep:100 is no SIP
  status         text        NOT NULL DEFAULT '',  -- of a reply
  fromip         text        NOT NULL DEFAULT '',  -- udp:192.0.2.1:5060
  toip           text        NOT NULL DEFAULT '',
  fromtag        text        NOT NULL DEFAULT '',
  totag          text        NOT NULL DEFAULT '',
  direction      text        NOT NULL DEFAULT '',  -- in, out or unknown: ''
  event_id       uuid        NOT NULL,             -- the same for the same captured message, always
  node           text        NOT NULL DEFAULT '',  -- the agent that captured it
  transport      text        NOT NULL DEFAULT '',  -- udp, tcp, tls, sctp, ws, wss
  cseq           bigint      NOT NULL DEFAULT 0,
  correlation_id text        NOT NULL DEFAULT '',
  from_user      text        NOT NULL DEFAULT '',
  to_user        text        NOT NULL DEFAULT '',
  ruri_user      text        NOT NULL DEFAULT '',
  PRIMARY KEY (time_stamp, event_id, traced_user)
) PARTITION BY RANGE (time_stamp);

-- Alone: with time_stamp behind it each key would be another, and the index
-- five times as large.
-- +goose StatementBegin
DO $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
                 WHERE i.indrelid = to_regclass(format('%I.sip_trace', current_schema())) AND a.attname = 'callid') THEN
    CREATE INDEX ON sip_trace (callid); -- sip_trace_callid_idx, if no other has the name
  END IF;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- lz4 writes messages above 2 kB twice as fast, where the server was built with it.
DO $$
BEGIN
  EXECUTE 'ALTER TABLE sip_trace ALTER msg SET COMPRESSION lz4';
EXCEPTION WHEN feature_not_supported OR syntax_error OR invalid_parameter_value THEN
  NULL;
END $$;
-- +goose StatementEnd

-- The trace tables. Only these get partitions.
CREATE TABLE IF NOT EXISTS trace_tables (
  name    text        PRIMARY KEY CHECK (name ~ '^[a-z][a-z0-9_]{0,39}$'),
  created timestamptz NOT NULL DEFAULT now()
);

INSERT INTO trace_tables (name) VALUES ('sip_trace') ON CONFLICT DO NOTHING;

-- +goose StatementBegin
-- sip_text is a message as text for people: UTF-8 where it is that, else with
-- escapes. It never fails.
CREATE OR REPLACE FUNCTION sip_text(msg bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
  RETURN convert_from(msg, 'UTF8');
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
  RETURN encode(msg, 'escape');
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- siptrace_make_view makes the view of a trace table for people, unless it is there.
CREATE OR REPLACE FUNCTION siptrace_make_view(sch text, trace_table text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  IF to_regclass(format('%I.%I', sch, trace_table || '_text')) IS NOT NULL THEN
    RETURN;
  END IF;
  EXECUTE format('CREATE VIEW %1$I.%3$I AS
    SELECT time_stamp, node, direction, fromip, toip, method, status, callid, cseq, from_user, to_user, ruri_user, fromtag, totag,
           traced_user, correlation_id, %1$I.sip_text(msg) AS msg
    FROM %1$I.%2$I', sch, trace_table, trace_table || '_text');
END $$;
-- +goose StatementEnd

SELECT siptrace_make_view(current_schema(), 'sip_trace');

-- +goose StatementBegin
-- siptrace_add_partition makes the partition of a trace table that holds the
-- times from lo up to hi, and reports whether it was not there before. It runs
-- with its owner's rights: a writer needs INSERT and SELECT on the tables,
-- EXECUTE on this, and TEMPORARY on the database.
--
-- The partition is made apart and attached: made in place it would wait for
-- every open insert, and every later insert for it. Who drops a partition holds
-- the advisory lock for itself meanwhile: a new one is made when the old one is gone.
--
-- Where something else has the name, perhaps a partition of a table that was
-- renamed, the partition gets a number behind it.
CREATE OR REPLACE FUNCTION siptrace_add_partition(trace_table text, lo timestamptz, hi timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET timezone = 'UTC' AS $$
DECLARE
  sch   text := current_schema();
  stem  text := trace_table || to_char(lo, CASE WHEN hi - lo < interval '1 day' THEN '"_p"YYYYMMDD_HH24' ELSE '"_p"YYYYMMDD' END);
  leaf  text := stem;
  whole regclass := to_regclass(format('%I.%I', sch, trace_table));
  part  record;
BEGIN
  PERFORM set_config('search_path', format('%I, pg_temp', sch), true); -- else a caller's temporary tables would come first
  IF NOT EXISTS (SELECT FROM trace_tables t WHERE t.name = trace_table) THEN
    RAISE EXCEPTION 'table "%" is not among the trace tables', trace_table USING ERRCODE = 'object_not_in_prerequisite_state';
  END IF;
  PERFORM pg_advisory_xact_lock_shared(hashtextextended('siptrace:' || sch || '.' || stem, 0));
  IF EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = whole AND NOT i.inhdetachpending AND (c.relname = stem OR c.relname ~ ('^' || stem || '_[2-9]$'))) THEN
    RETURN false;
  END IF;
  -- Many writers, one maker; and no lock on the table before this one, for a DETACH would wait for that.
  EXECUTE format('LOCK TABLE ONLY %I.%I IN SHARE UPDATE EXCLUSIVE MODE', sch, trace_table);
  FOR n IN 2..10 LOOP
    SELECT i.inhparent, i.inhdetachpending INTO part
    FROM pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
    WHERE s.nspname = sch AND c.relname = leaf;
    EXIT WHEN NOT FOUND;
    IF part.inhparent = whole AND NOT part.inhdetachpending THEN
      RETURN false;
    ELSIF part.inhparent = whole THEN -- who began to drop it has died
      EXECUTE format('ALTER TABLE %I.%I DETACH PARTITION %I.%I FINALIZE', sch, trace_table, sch, leaf);
    END IF;
    IF n = 10 THEN
      RAISE EXCEPTION 'relation "%" is in the way of a partition', leaf USING ERRCODE = 'duplicate_table';
    END IF;
    leaf := stem || '_' || n;
  END LOOP;
  EXECUTE format('CREATE TABLE %1$I.%2$I (LIKE %1$I.%3$I INCLUDING ALL, CONSTRAINT part_range CHECK (time_stamp >= %4$L AND time_stamp < %5$L))',
    sch, leaf, trace_table, lo, hi); -- the constraint spares ATTACH its scan
  EXECUTE format('ALTER TABLE %1$I.%3$I ATTACH PARTITION %1$I.%2$I FOR VALUES FROM (%4$L) TO (%5$L)', sch, leaf, trace_table, lo, hi);
  EXECUTE format('ALTER TABLE %1$I.%2$I DROP CONSTRAINT part_range', sch, leaf);
  RETURN true;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
-- siptrace_create_table makes a trace table after the model of sip_trace, and
-- its view, and reports whether it was not there before. It runs with its
-- owner's rights.
CREATE OR REPLACE FUNCTION siptrace_create_table(trace_table text, most integer) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
DECLARE
  sch text := current_schema();
BEGIN
  PERFORM set_config('search_path', format('%I, pg_temp', sch), true); -- else a caller's temporary tables would come first
  PERFORM pg_advisory_xact_lock(hashtextextended('siptrace:' || sch, 0));
  IF to_regclass(format('%I.%I', sch, trace_table)) IS NOT NULL THEN
    RETURN false;
  END IF;
  IF NOT EXISTS (SELECT FROM trace_tables t WHERE t.name = trace_table) AND (SELECT count(*) FROM trace_tables) >= most THEN
    RAISE EXCEPTION 'there are % trace tables already', most USING ERRCODE = 'configuration_limit_exceeded';
  END IF;
  INSERT INTO trace_tables (name) VALUES (trace_table) ON CONFLICT DO NOTHING; -- it is there when the table was dropped by hand
  EXECUTE format('CREATE TABLE %1$I.%2$I (LIKE %1$I.sip_trace INCLUDING ALL) PARTITION BY RANGE (time_stamp)', sch, trace_table);
  PERFORM siptrace_make_view(sch, trace_table);
  RETURN true;
END $$;
-- +goose StatementEnd

REVOKE ALL ON FUNCTION siptrace_make_view, siptrace_add_partition, siptrace_create_table FROM PUBLIC;
