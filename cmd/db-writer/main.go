// Command db-writer stores traced SIP messages in PostgreSQL or SQLite.
package main

import (
	"os"

	"github.com/seed-452fa805/siptrace/internal/app"
)

const description = `Store traced SIP messages from NATS JetStream in a database.

Start more of them to write faster: processes with the same --durable share the work.

Examples:
  db-writer --store postgres://siptrace@db.example.com/siptrace
  SIPTRACE_STORE=postgres://siptrace:secret@db/siptrace db-writer --partition hour
  db-writer --store sqlite:/var/lib/siptrace/siptrace.db`

func main() {
	os.Exit(app.Main("db-writer", description, new(app.WriterOptions), os.Args[1:], os.Stdout, os.Stderr))
}
