// Command ctl switches, watches and searches siptrace.
package main

import (
	"os"

	"github.com/seed-452fa805/siptrace/internal/app/ctl"
)

func main() {
	os.Exit(ctl.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
