package open

import (
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// Check reports what is wrong with a database's URL, without opening it.
func Check(url string) error {
	switch scheme, rest := split(url); scheme {
	case "postgres":
		if _, err := pgx.ParseConfig(rest); err != nil {
			return fmt.Errorf("store: %w", err) // pgx hides the password
		}
		return nil
	case "sqlite":
		if rest == "" {
			return errors.New("store sqlite: no file; use sqlite:FILE")
		}
		return nil
	default:
		return unknown(scheme)
	}
}
