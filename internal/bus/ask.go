package bus

import "context"

// CheckURL reports what is wrong with a list of NATS URLs, without connecting.
func CheckURL(list string) error {
	_, _, err := parseURLs(list)
	return err
}

// Await returns nil as soon as NATS is there, or the error of ctx.
func (c *Conn) Await(ctx context.Context) error { return c.await(ctx) }
