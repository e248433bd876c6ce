package app

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"gopkg.in/yaml.v3"
)

// Exit codes of every command.
const (
	ExitDone   = 0
	ExitFailed = 1
	ExitUsage  = 2
)

// Version is the version of the program, set when a release is built.
var Version = "dev"

// A UsageError is the caller's fault: wrong flags or values. Commands end with
// [ExitUsage] for it.
type UsageError struct{ Err error }

func (e UsageError) Error() string { return e.Err.Error() }

func (e UsageError) Unwrap() error { return e.Err }

// Usagef returns a [UsageError].
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// ConfigFlags are how every command takes its configuration: flags, then
// environment (SIPTRACE_…), then the YAML file.
type ConfigFlags struct {
	Config  kong.ConfigFlag  `help:"YAML file with the same names as the flags." placeholder:"FILE"`
	Version kong.VersionFlag `help:"Print the version and end." env:"-"`
}

// DryFlags start nothing.
type DryFlags struct {
	Check       bool `help:"Check flags, environment and file, build everything, start nothing." env:"-"`
	PrintConfig bool `help:"Print the effective configuration as YAML, secrets hidden, and end." env:"-"`
}

// parser returns the kong parser all commands use.
func parser(name, description string, grammar any, stdout, stderr io.Writer, options ...kong.Option) (*kong.Kong, error) {
	return kong.New(grammar, append([]kong.Option{
		kong.Name(name),
		kong.Description(description),
		kong.DefaultEnvars("SIPTRACE"),
		kong.Configuration(readConfig),
		kong.Vars{"version": name + " " + Version},
		kong.Writers(stdout, stderr),
		kong.ConfigureHelp(kong.HelpOptions{WrapUpperBound: 110}),
		kong.ValueFormatter(helpText),
	}, options...)...)
}

// helpText is what --help says of a flag, with its default where neither the
// text nor the flag's placeholder shows one.
func helpText(v *kong.Value) string {
	text := kong.DefaultHelpValueFormatter(v)
	if v.Flag != nil && v.Tag.PlaceHolder == "" || !v.HasDefault || v.Default == "" || v.Default == "0" || strings.Contains(v.Help, "efault") {
		return text
	}
	before, env, ok := strings.Cut(text, " ($")
	text = strings.TrimSuffix(before, ".") + "; default " + v.Default
	if ok {
		return text + " ($" + env
	}
	return text + "."
}

// exited carries the code with which kong wants to leave, after --help.
type exited int

// Parse reads args into grammar. done is true when nothing is left to do but
// to leave with the code: after --help, --version, or a usage error, which has
// been said.
func Parse(name, description string, grammar any, args []string, stdout, stderr io.Writer, options ...kong.Option) (kctx *kong.Context, code int, done bool) {
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(exited)
			if !ok {
				panic(r)
			}
			kctx, code, done = nil, int(e), true
		}
	}()
	options = append(options, kong.Exit(func(code int) { panic(exited(code)) }))
	k, err := parser(name, description, grammar, stdout, stderr, options...)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", name, err)
		return nil, ExitFailed, true
	}
	kctx, err = k.Parse(args)
	if err != nil {
		fmt.Fprintf(stderr, "%s: %v\ntry: %s --help\n", name, err, name)
		return nil, ExitUsage, true
	}
	return kctx, ExitDone, false
}

// ExitCode says what a command's error means to a script, and tells people.
func ExitCode(name string, err error, stderr io.Writer) int {
	if err == nil {
		return ExitDone
	}
	fmt.Fprintf(stderr, "%s: %v\n", name, err)
	var usage UsageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "try: %s --help\n", name)
		return ExitUsage
	}
	return ExitFailed
}

// PrintConfig writes the effective value of every flag as YAML that --config
// takes back, but for what is secret.
func PrintConfig(w io.Writer, k *kong.Context) error {
	values := make(map[string]any)
	for _, f := range k.Flags() {
		if f.Name == "help" || f.Name == "config" || f.Name == "check" || f.Name == "print-config" || f.Name == "version" {
			continue
		}
		values[f.Name] = shown(f)
	}
	for n := k.Selected(); n != nil && n.Type != kong.ApplicationNode; n = n.Parent {
		values = map[string]any{n.Name: values}
	}
	out, err := yaml.Marshal(values)
	if err != nil {
		return fmt.Errorf("print config: %w", err)
	}
	_, err = w.Write(out)
	return err
}

// shown is a flag's value as it may be seen.
func shown(f *kong.Flag) any {
	v := f.Target.Interface()
	switch v := v.(type) {
	case string:
		if f.Tag.Has("secret") && v != "" {
			return "(hidden)"
		}
		if f.Tag.Has("list") {
			return redactList(v)
		}
		return Redact(v)
	case []string:
		out := make([]string, len(v))
		for i := range v {
			out[i] = Redact(v[i])
		}
		return out
	case fmt.Stringer:
		return v.String()
	}
	return v
}

// secretOptions are query options of our URLs that hold secrets.
var secretOptions = []string{"auth", "password", "token"}

// Redact hides passwords and keys in a URL. What is no URL comes back as it is.
func Redact(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme == "" {
		if err != nil && strings.Contains(s, "@") {
			return "(hidden)" // a URL that cannot be read may hold a password
		}
		return s
	}
	if _, has := u.User.Password(); has {
		u.User = url.UserPassword(u.User.Username(), "hidden")
	}
	if u.RawQuery != "" {
		parts := strings.Split(u.RawQuery, "&")
		for i, p := range parts {
			name, value, ok := strings.Cut(p, "=")
			if ok && slices.Contains(secretOptions, name) {
				parts[i] = name + "=hidden"
			} else if inner, err := url.PathUnescape(value); err == nil && strings.Contains(inner, "://") {
				parts[i] = name + "=" + url.QueryEscape(Redact(inner)) // a URL in a URL
			}
		}
		u.RawQuery = strings.Join(parts, "&")
	}
	return u.String()
}

// redactList is Redact for several URLs separated by commas, of which only the
// first has to have a scheme.
func redactList(s string) string {
	const scheme = "nats://"
	parts := strings.Split(s, ",")
	for i, p := range parts {
		if strings.Contains(p, "://") {
			parts[i] = Redact(p)
		} else {
			parts[i] = strings.TrimPrefix(Redact(scheme+p), scheme)
		}
	}
	return strings.Join(parts, ",")
}

// hostname is the machine's name, the default of the agent's.
func hostname() string {
	h, err := os.Hostname()
	if err != nil || h == "" {
		return "localhost"
	}
	return h
}
