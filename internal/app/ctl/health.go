package ctl

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/seed-452fa805/siptrace/internal/app"
)

// HealthCmd is ctl health: the probe of a container that has no shell.
type HealthCmd struct {
	URL     string       `arg:"" name:"url" help:"What to ask: /readyz or /healthz of a service." placeholder:"URL"`
	Timeout app.Duration `help:"Longest wait for the answer." default:"5s" placeholder:"DURATION"`
}

// Help is the end of ctl health --help.
func (*HealthCmd) Help() string {
	return `Examples:
  ctl health http://127.0.0.1:9081/readyz     does the tap wait for anything?
  ctl health http://127.0.0.1:9083/healthz    does the db-writer run at all?`
}

// maxAnswer is how much of an answer is read.
const maxAnswer = 64 << 10

// Run asks once. Everything but 200 is a failure, and the answer says why.
func (c *HealthCmd) Run(env *Env) error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return app.Usagef("health: %q: use http://HOST:PORT/readyz", app.Redact(c.URL))
	}
	req, err := http.NewRequestWithContext(env, http.MethodGet, c.URL, nil)
	if err != nil {
		return err
	}
	client := http.Client{Timeout: time.Duration(c.Timeout)}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("not healthy: %w", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("not healthy: %w", err)
	}
	answer := strings.TrimSpace(string(body))
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("not healthy: %s: %s", res.Status, answer)
	}
	_, err = fmt.Fprintln(env.Stdout, answer)
	return err
}
