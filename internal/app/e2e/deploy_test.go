package e2e

import (
	"bufio"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// root is the folder of the repository.
const root = "../../.."

// compose is what compose.yaml says, as far as we look.
type compose struct {
	Services map[string]service        `yaml:"services"`
	Volumes  map[string]map[string]any `yaml:"volumes"`
}

type service struct {
	Image       string            `yaml:"image"`
	Build       string            `yaml:"build"`
	Command     []string          `yaml:"command"`
	Environment map[string]string `yaml:"environment"`
	Volumes     []string          `yaml:"volumes"`
	Ports       []string          `yaml:"ports"`
	Restart     string            `yaml:"restart"`
	ReadOnly    bool              `yaml:"read_only"`
	Healthcheck struct {
		Test []string `yaml:"test"`
	} `yaml:"healthcheck"`
	DependsOn map[string]struct {
		Condition string `yaml:"condition"`
	} `yaml:"depends_on"`
}

func readCompose(t *testing.T) compose {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var c compose
	if err := yaml.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// variable is ${NAME:-default}, the only form that compose.yaml uses.
var variable = regexp.MustCompile(`\$\{[A-Z_]+:-([^}]*)\}`)

// filledIn is s where nobody has set a variable.
func filledIn(s string) string { return variable.ReplaceAllString(s, "$1") }

// programs are the names of the programs in cmd.
func programs(t *testing.T) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, "cmd"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// check fails the test unless a program takes a command line; it returns the
// configuration that comes of it.
func check(t *testing.T, env map[string]string, name string, args ...string) map[string]any {
	t.Helper()
	vars := environment(t)
	for _, key := range slices.Sorted(maps.Keys(env)) {
		vars = append(vars, key+"="+env[key])
	}
	if r := runWith(t, vars, "", name, append(args, "--check")...); r.code != 0 {
		t.Errorf("%s %s --check: exit code %d\n%s", name, strings.Join(args, " "), r.code, r.errors)
	}
	r := runWith(t, vars, "", name, append(args, "--print-config")...)
	var config map[string]any
	if err := yaml.Unmarshal([]byte(r.out), &config); err != nil || r.code != 0 {
		t.Fatalf("%s --print-config: exit code %d, %v\n%s", name, r.code, err, r.errors)
	}
	return config
}

func TestCompose_runsEveryServiceWithAHealthCheckAndARestart(t *testing.T) {
	c := readCompose(t)
	want := []string{"db-writer", "hep-forwarder", "nats", "postgres", "tap"}
	if got := slices.Sorted(maps.Keys(c.Services)); !slices.Equal(got, want) {
		t.Fatalf("services %v, want %v", got, want)
	}
	for name, s := range c.Services {
		if len(s.Healthcheck.Test) < 2 || s.Healthcheck.Test[0] != "CMD" {
			t.Errorf("%s: health check %q, want a CMD", name, s.Healthcheck.Test)
		}
		if s.Restart != "unless-stopped" {
			t.Errorf("%s: restart %q, want unless-stopped", name, s.Restart)
		}
		for on, d := range s.DependsOn {
			if _, ok := c.Services[on]; !ok || d.Condition != "service_healthy" {
				t.Errorf("%s depends on %s, %q", name, on, d.Condition)
			}
		}
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if _, ok := c.Volumes[source]; !ok {
				t.Errorf("%s: volume %s is not declared", name, source)
			}
		}
	}
	for name, folder := range map[string]string{"nats": "/data", "postgres": "/var/lib/postgresql/data", "tap": "/var/lib/siptrace"} {
		if v := c.Services[name].Volumes; len(v) != 1 || !strings.HasSuffix(v[0], ":"+folder) {
			t.Errorf("%s: volumes %q, want one at %s", name, v, folder)
		}
	}
	if cmd := c.Services["nats"].Command; !slices.Contains(cmd, "--jetstream") {
		t.Errorf("nats: command %q has no --jetstream", cmd)
	}
}

func TestCompose_startsProgramsThatTheImageHasWithFlagsThatTheyTake(t *testing.T) {
	for name, s := range readCompose(t).Services {
		if s.Build == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			env := make(map[string]string)
			for key, value := range s.Environment {
				env[key] = filledIn(value)
			}
			var command []string
			for _, arg := range s.Command {
				command = append(command, filledIn(arg))
			}
			if len(command) == 0 || command[0] != name || !slices.Contains(programs(t), name) {
				t.Fatalf("command %q, want %s, one of %v", command, name, programs(t))
			}
			config := check(t, env, command[0], command[1:]...)
			if config["nats"] != "nats://nats:4222" {
				t.Errorf("nats is %v, want the service nats", config["nats"])
			}
			if s.Image == "" || !s.ReadOnly {
				t.Errorf("image %q, read-only %v, want one and true", s.Image, s.ReadOnly)
			}
			probe := s.Healthcheck.Test
			if len(probe) != 4 || probe[1] != "ctl" || probe[2] != "health" {
				t.Fatalf("health check %q, want ctl health URL", probe)
			}
			at, ok := config["http"].(string)
			if !ok || !strings.HasPrefix(probe[3], "http://127.0.0.1"+at+"/") {
				t.Errorf("health check asks %s, and the service listens on %v", probe[3], config["http"])
			}
			published := "127.0.0.1" + at + at // and only for this machine
			if !slices.Contains(s.Ports, published) {
				t.Errorf("ports %q, want %s", s.Ports, published)
			}
		})
	}
}

func TestDockerfile_buildsEveryProgramIntoAnImageWithoutRoot(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)
	if version == nil {
		t.Fatal("go.mod names no version of Go")
	}
	dockerfile := string(text)
	for _, line := range []string{
		"FROM golang:" + string(version[1]) + " AS build",
		"FROM scratch",
		"COPY --from=build /out/ /usr/local/bin/",
		"USER 65532:65532",
	} {
		if !slices.Contains(strings.Split(dockerfile, "\n"), line) {
			t.Errorf("no line %q", line)
		}
	}
	_, last, _ := strings.Cut(dockerfile, "FROM scratch")
	if strings.Contains(last, "\nRUN ") {
		t.Error("the last stage runs a command: it has no shell")
	}
	var built []string
	for _, m := range regexp.MustCompile(`\./cmd/([a-z-]+)`).FindAllStringSubmatch(dockerfile, -1) {
		built = append(built, m[1])
	}
	slices.Sort(built)
	if want := programs(t); !slices.Equal(built, want) {
		t.Errorf("builds %v, want %v", built, want)
	}
}

// A unit is a systemd unit: the values of each key, by section.
type unit map[string]map[string][]string

func readUnit(t *testing.T, path string) unit {
	t.Helper()
	u := make(unit)
	section := ""
	for _, line := range linesOf(t, path) {
		if name, ok := strings.CutPrefix(line, "["); ok {
			section = strings.TrimSuffix(name, "]")
			u[section] = make(map[string][]string)
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || section == "" {
			t.Fatalf("%s: line %q", path, line)
		}
		u[section][key] = append(u[section][key], value)
	}
	return u
}

// linesOf are the lines of a file that say something.
func linesOf(t *testing.T, path string) []string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var lines []string
	for s := bufio.NewScanner(file); s.Scan(); {
		if line := strings.TrimSpace(s.Text()); line != "" && !strings.HasPrefix(line, "#") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestUnits_startEveryServiceWithFlagsThatItTakes(t *testing.T) {
	for _, name := range programs(t) {
		if name == "ctl" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			folder := filepath.Join(root, "deploy", "systemd")
			u := readUnit(t, filepath.Join(folder, "siptrace-"+name+".service"))["Service"]
			for key, want := range map[string]string{
				"Restart": "always", "DynamicUser": "yes", "StateDirectory": "siptrace-" + name,
				"Environment":              "GOTRACEBACK=crash", // a panic must not leave with 2
				"RestartPreventExitStatus": "2", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "CapabilityBoundingSet": "",
			} {
				if got := u[key]; len(got) != 1 || got[0] != want {
					t.Errorf("%s is %q, want %q", key, got, want)
				}
			}
			if families := strings.Fields(strings.Join(u["RestrictAddressFamilies"], " ")); name != "db-writer" && !slices.Contains(families, "AF_NETLINK") {
				t.Errorf("RestrictAddressFamilies is %q: without AF_NETLINK it does not know its own addresses, and loops are not recognised", families)
			}
			if got, want := u["EnvironmentFile"], "/etc/siptrace/"+name+".env"; len(got) != 1 || strings.TrimPrefix(got[0], "-") != want {
				t.Errorf("EnvironmentFile is %q, want %s", got, want)
			}
			env := make(map[string]string)
			for _, line := range linesOf(t, filepath.Join(folder, name+".env")) {
				key, value, _ := strings.Cut(line, "=")
				env[key] = value
			}
			if len(u["ExecStart"]) != 1 {
				t.Fatalf("ExecStart is %q, want one", u["ExecStart"])
			}
			args := strings.Fields(u["ExecStart"][0])
			if args[0] != "/usr/local/bin/"+name {
				t.Errorf("ExecStart runs %s, want /usr/local/bin/%s", args[0], name)
			}
			check(t, env, name, args[1:]...)
		})
	}
}

func TestHealth_asksAServiceAndSaysWhatItWaitsFor(t *testing.T) {
	nats := newNATS(t)
	tap := startTap(t, nats.url(), "edge", freeAddr(t), t.TempDir())
	if r := run(t, "", "ctl", "health", tap.address(t)+"/healthz"); r.code != 0 || r.out != "ok\n" {
		t.Errorf("/healthz without NATS: exit code %d, %q, want 0 and ok: the tap runs", r.code, r.out)
	}
	if r := run(t, "", "ctl", "health", tap.address(t)+"/readyz"); r.code != 1 || !strings.Contains(r.errors, "nats: ") {
		t.Errorf("/readyz without NATS: exit code %d, %q, want 1 and nats", r.code, r.errors)
	}
	nats.start(t)
	tap.ready(t)
	if r := run(t, "", "ctl", "health", tap.address(t)+"/readyz"); r.code != 0 || r.out != "ready\n" {
		t.Errorf("/readyz: exit code %d, %q, want 0 and ready", r.code, r.out)
	}
	tap.stop(t)
	if r := run(t, "", "ctl", "health", tap.address(t)+"/healthz"); r.code != 1 || !strings.Contains(r.errors, "connection refused") {
		t.Errorf("a tap that has ended: exit code %d, %q, want 1", r.code, r.errors)
	}
	if r := run(t, "", "ctl", "health", "127.0.0.1:9081"); r.code != 2 {
		t.Errorf("without http://: exit code %d, want 2", r.code)
	}
}
