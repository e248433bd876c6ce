package app

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"github.com/alecthomas/kong"
	kongyaml "github.com/alecthomas/kong-yaml"
	"gopkg.in/yaml.v3"
)

// A configFile is the file that --config names. What the environment sets goes
// before it, and a name that no flag has is refused.
type configFile struct {
	kong.Resolver
	values map[string]any
}

// readConfig reads a configuration file.
func readConfig(r io.Reader) (kong.Resolver, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	c := new(configFile)
	if err := yaml.Unmarshal(text, &c.values); err != nil {
		return nil, err
	}
	c.Resolver, err = kongyaml.Loader(bytes.NewReader(text))
	return c, err
}

// Validate refuses names that are no flag's.
func (c *configFile) Validate(app *kong.Application) error {
	known := make(map[string]bool)
	flagNames(app.Node, "", known)
	for _, name := range slices.Sorted(maps.Keys(flat(c.values, ""))) {
		if !known[name] {
			return fmt.Errorf("configuration file: no flag is called %q", name)
		}
	}
	return nil
}

// flagNames adds the names of all flags of a command and of those below it,
// which carry the name of the command in front.
func flagNames(n *kong.Node, prefix string, names map[string]bool) {
	for _, f := range n.Flags {
		names[prefix+f.Name] = true
	}
	for _, child := range n.Children {
		flagNames(child, prefix+child.Name+"-", names)
	}
}

// flat is a tree of values with the names on the way joined by "-", which
// means the same to kong.
func flat(tree map[string]any, prefix string) map[string]any {
	out := make(map[string]any)
	for name, v := range tree {
		if below, ok := v.(map[string]any); ok {
			maps.Copy(out, flat(below, prefix+name+"-"))
			continue
		}
		out[prefix+name] = v
	}
	return out
}

// Resolve returns what the file says of a flag that the environment leaves open.
func (c *configFile) Resolve(ctx *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	for _, env := range flag.Envs {
		if _, ok := os.LookupEnv(env); ok {
			return nil, nil
		}
	}
	return c.Resolver.Resolve(ctx, parent, flag)
}
