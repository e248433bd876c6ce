-- +goose Up

-- One row for each traced message, and one more for each traced user of it.
-- The columns up to direction are those of Kamailio's sip_trace.
CREATE TABLE IF NOT EXISTS "sip_trace" (
  id             INTEGER NOT NULL,             -- milliseconds of capture and 16 bits of digest; not unique
  time_stamp     INTEGER NOT NULL,             -- time of capture: microseconds since 1970, UTC
  time_us        INTEGER NOT NULL DEFAULT 0,   -- its microseconds again
  callid         TEXT    NOT NULL DEFAULT '',
  traced_user    TEXT    NOT NULL DEFAULT '',  -- '' in the row that stands for the message itself
  msg            BLOB    NOT NULL,             -- the message, byte for byte
  method         TEXT    NOT NULL DEFAULT '',  -- of the request, or of a reply's CSeq; hep:100 is no SIP
  status         TEXT    NOT NULL DEFAULT '',  -- of a reply
  fromip         TEXT    NOT NULL DEFAULT '',  -- udp:192.0.2.1:5060
  toip           TEXT    NOT NULL DEFAULT '',
  fromtag        TEXT    NOT NULL DEFAULT '',
  totag          TEXT    NOT NULL DEFAULT '',
  direction      TEXT    NOT NULL DEFAULT '',  -- in, out or unknown: ''
  event_id       BLOB    NOT NULL,             -- the same for the same captured message, always
  node           TEXT    NOT NULL DEFAULT '',  -- the agent that captured it
  transport      TEXT    NOT NULL DEFAULT '',  -- udp, tcp, tls, sctp, ws, wss
  cseq           INTEGER NOT NULL DEFAULT 0,
  correlation_id TEXT    NOT NULL DEFAULT '',
  from_user      TEXT    NOT NULL DEFAULT '',
  to_user        TEXT    NOT NULL DEFAULT '',
  ruri_user      TEXT    NOT NULL DEFAULT '',
  PRIMARY KEY (time_stamp, event_id, traced_user)
) STRICT;

CREATE INDEX IF NOT EXISTS "sip_trace_callid" ON "sip_trace" (callid);

-- The same for people: times and messages as text.
CREATE VIEW IF NOT EXISTS "sip_trace_text" AS
SELECT strftime('%Y-%m-%d %H:%M:%S', time_stamp / 1000000, 'unixepoch') || printf('.%06d', time_us) AS time_stamp,
       node, direction, fromip, toip, method, status, callid, cseq, from_user, to_user, ruri_user, fromtag, totag,
       traced_user, correlation_id, CAST(msg AS TEXT) AS msg
FROM "sip_trace";

-- The trace tables. Another one is made after the model of sip_trace.
CREATE TABLE IF NOT EXISTS trace_tables (
  name    TEXT PRIMARY KEY,
  created INTEGER NOT NULL DEFAULT (unixepoch())
) STRICT;

INSERT OR IGNORE INTO trace_tables (name) VALUES ('sip_trace');
