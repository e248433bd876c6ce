package rules

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/seed-452fa805/siptrace/pkg/trace"
)

func compiler(t testing.TB) *Compiler {
	t.Helper()
	c, err := NewCompiler()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// hostile are rules that must be refused, each with what the reason must say.
func hostile() []struct {
	name   string
	rule   trace.Rule
	reason string
} {
	long := strings.Repeat("a", 256)
	many := func(n int) []string {
		return strings.Split(strings.Repeat("x,", n), ",")[:n]
	}
	table := func(s string) trace.Rule { return trace.Rule{Table: s} }
	user := func(s string) trace.Rule { return trace.Rule{Users: list(s)} }
	to := func(s string) trace.Rule { return trace.Rule{Destinations: list(s)} }
	when := func(s string) trace.Rule { return trace.Rule{When: s} }
	header := func(name string, values ...string) trace.Rule {
		return trace.Rule{Headers: map[string][]string{name: values}}
	}
	return []struct {
		name   string
		rule   trace.Rule
		reason string
	}{
		{"name with a dot", trace.Rule{Name: "a.b"}, `name "a.b"`},
		{"name with a wildcard", trace.Rule{Name: ">"}, `name ">"`},
		{"name with a space", trace.Rule{Name: "a b"}, "name"},
		{"name with a slash", trace.Rule{Name: "../x"}, "name"},
		{"name that begins with a dash", trace.Rule{Name: "-a"}, "name"},
		{"name too long", trace.Rule{Name: strings.Repeat("a", 64)}, "name"},
		{"name with a letter of another script", trace.Rule{Name: "rüle"}, "name"},
		{"table with SQL", table(`sip_trace"; DROP TABLE sip_trace; --`), "table"},
		{"table with a schema", table("public.sip_trace"), "small letter"},
		{"table in capitals", table("SIP_TRACE"), "small letter"},
		{"table with a quote", table("a'b"), "small letter"},
		{"table with NUL", table("a\x00b"), "small letter"},
		{"table with a line end", table("a\nb"), "small letter"},
		{"table that begins with a digit", table("1a"), "small letter"},
		{"table too long", table("a" + strings.Repeat("b", 40)), "small letter"},
		{"table of the catalogue", table("pg_class"), "kept"},
		{"table of SQLite", table("sqlite_master"), "kept"},
		{"table that is a view", table("sip_trace_text"), "kept"},
		{"table that is a partition", table("sip_trace_p20261122"), "kept"},
		{"table that is a partition of an hour", table("sip_trace_p20261122_07"), "kept"},
		{"user with a line end", user("a\r\nb"), "control character"},
		{"user with NUL", user("a\x00"), "control character"},
		{"user with an escape sequence", user("\x1b[31m"), "control character"},
		{"user too long", user(long), "255"},
		{"user of no bytes", user(""), "empty"},
		{"user that is no UTF-8", user("a\xff"), "UTF-8"},
		{"too many users", trace.Rule{Users: many(33)}, "more than 32"},
		{"users from elsewhere", trace.Rule{UsersFrom: list("contact")}, "none of from, to and ruri"},
		{"destination of no scheme", to("10.0.0.1"), "none of hep+udp"},
		{"destination file", to("file:///etc/passwd"), "none of hep+udp"},
		{"destination http", to("http://169.254.169.254/latest"), "none of hep+udp"},
		{"destination exec", to("exec:rm -rf /"), "0x20"},
		{"destination sips", to("sips:10.0.0.1"), "none of hep+udp"},
		{"destination with a line end", to("sip:10.0.0.1\r\nX: y"), "0x0d"},
		{"destination with NUL", to("sip:10.0.0.1\x00"), "0x00"},
		{"destination without host", to("hep+udp://:9060"), "no host"},
		{"destination with a password", to("hep+udp://a:secret@10.0.0.1"), "'@'"},
		{"destination that names a file", to("hep+tls://h?key=/etc/ssl/private/key.pem"), `option "key"`},
		{"destination that names a local address", to("hep+udp://h?from=udp:10.0.0.1:53"), `option "from"`},
		{"destination with a bad port", to("sip:10.0.0.1:99999"), "port"},
		{"destination with half an address", to("sip:[2001:db8::1"), "without its ]"},
		{"destination with a path", to("hep+udp://h/../../x"), "'/'"},
		{"destination too long", to("hep+udp://h?node=" + strings.Repeat("x", 600)), "512"},
		{"too many destinations", trace.Rule{Destinations: many(17)}, "more than 16"},
		{"header name with a colon", header("X:Y", "z"), "not the name of a header field"},
		{"header name with a line end", header("X\r\nY", "z"), "not the name of a header field"},
		{"header name too long", header(strings.Repeat("X", 65), "z"), "not the name of a header field"},
		{"compact header name", header("f", "z"), "in full"},
		{"header without value", header("X-Y"), "no value"},
		{"header value with a line end", header("X-Y", "a\r\nb"), "control character"},
		{"header value too long", header("X-Y", long), "255"},
		{"too many headers", trace.Rule{Headers: func() map[string][]string {
			m := make(map[string][]string)
			for i := range 17 {
				m["X-"+string(rune('A'+i))] = list("x")
			}
			return m
		}()}, "more than 16"},
		{"star inside", trace.Rule{FromUser: list("a*b")}, "* inside"},
		{"two stars", trace.Rule{FromUser: list("**")}, "* inside"},
		{"nothing", trace.Rule{FromUser: list("")}, "empty"},
		{"not nothing", trace.Rule{FromUser: list("!")}, "empty"},
		{"backslash", trace.Rule{FromUser: list(`a\b`)}, "backslash"},
		{"backslash at the end", trace.Rule{FromUser: list(`a\`)}, "backslash"},
		{"too many callers", trace.Rule{FromUser: many(1001)}, "more than 1000"},
		{"host name as address", trace.Rule{Src: list("pbx.example.com")}, "names are not looked up"},
		{"address with a zone", trace.Rule{Src: list("fe80::1%eth0")}, "none of"},
		{"network with bits behind", trace.Rule{Src: list("10.1.2.3/8")}, "10.0.0.0/8?"},
		{"network of 33 bits", trace.Rule{Dst: list("10.0.0.0/33")}, "none of"},
		{"IPv4 network as IPv6", trace.Rule{Dst: list("::ffff:10.0.0.0/104")}, "IPv4"},
		{"port 0", trace.Rule{Addr: list(":0")}, "none of"},
		{"port too large", trace.Rule{Addr: list("10.0.0.1:65536")}, "none of"},
		{"bracket without its other", trace.Rule{Addr: list("[::1")}, "none of"},
		{"sample over all", trace.Rule{Sample: 100.5}, "sample"},
		{"sample under nothing", trace.Rule{Sample: -1}, "sample"},
		{"sample of no number", trace.Rule{Sample: math.NaN()}, "sample"},
		{"unknown scope", trace.Rule{Scope: "session"}, "neither dialog nor message"},
		{"why with a line end", trace.Rule{Why: "a\nb"}, "control character"},
		{"why too long", trace.Rule{Why: strings.Repeat("a", 501)}, "500"},
		{"drop and store", trace.Rule{Drop: true, Table: "x"}, "drop leaves nothing"},
		{"no store and a table", trace.Rule{NoStore: true, Table: "x"}, "no_store leaves nothing"},
		{"no duplicate and a destination", trace.Rule{NoDuplicate: true, Destinations: list("sip:h")}, "no_duplicate leaves nothing"},
		{"expression cut short", when(`method == `), "when:1:"},
		{"expression with an unknown name", when(`from_usr == "x"`), "when:1:1: undeclared reference to 'from_usr'"},
		{"expression of the wrong type", when(`status == "200"`), "when:1:8:"},
		{"expression that is a number", when(`status + 1`), "is a int"},
		{"expression with a loop", when(`[1,2,3].all(x, [1,2,3].all(y, x != y))`), "undeclared reference"},
		{"expression with map", when(`["a"].map(x, x + x).size() > 0`), "undeclared reference"},
		{"expression with a bad pattern", when(`user_agent.matches("(")`), "missing closing"},
		{"expression with a huge pattern", when(`user_agent.matches("(a{1000}){1000}")`), "when"},
		{"expression with a large pattern", when(`user_agent.matches("a{900}b{900}")`), "when"},
		{"expression with a short pattern that repeats", when(`header("Subject").matches("(.?){240}y")`), "when"},
		{"expression with many patterns", when(`user_agent.matches("(x?){20}y") || user_agent.matches("(x?){20}z")`), "instructions"},
		{"expression with a pattern from the message", when(`user_agent.matches(from_user)`), "wants its pattern in quotes"},
		{"expression with a made up pattern", when(`user_agent.matches("a" + from_user)`), "wants its pattern in quotes"},
		{"expression with a header from the message", when(`header(from_user) == "x"`), "in quotes"},
		{"expression with a compact header", when(`header("f") == "x"`), "in quotes"},
		{"expression too long", when(`from_user == "` + strings.Repeat("a", 3000) + `"`), "when"},
		{"expression of too many parts", when(strings.TrimSuffix(strings.Repeat(`status==1||`, 150), "||")), "when"},
		{"expression too deep", when(strings.Repeat("(", 500) + "true" + strings.Repeat(")", 500)), "when"},
		{"expression too dear", when(strings.TrimSuffix(strings.Repeat(`header("Via").matches("[a-z]+[0-9]+[a-z]+[0-9]+")||`, 5), "||")), "may cost"},
		{"expression that grows", when(`(user_agent + user_agent + user_agent + user_agent).contains(user_agent + user_agent)`), "may cost"},
		{"expression with another function", when(`system("id") == ""`), "undeclared reference"},
		{"expression with the message itself", when(`@message == @message`), "when:1:1"},
	}
}

func TestCompile_refusesWhatIsHostile(t *testing.T) {
	c := compiler(t)
	for _, tt := range hostile() {
		t.Run(tt.name, func(t *testing.T) {
			if tt.rule.Name == "" {
				tt.rule.Name = "r"
			}
			_, err := c.Compile(tt.rule, 0)
			var field *FieldError
			if !errors.As(err, &field) || !strings.Contains(err.Error(), tt.reason) {
				t.Fatalf("error = %v, want one that says %q", err, tt.reason)
			}
			if strings.Contains(err.Error(), "secret") || len(err.Error()) > 3000 {
				t.Errorf("the error tells too much: %v", err)
			}
		})
	}
}

func TestCompile_namesEveryFault(t *testing.T) {
	_, err := compiler(t).Compile(trace.Rule{
		Name: "r", FromUser: list("good", "a*b"), Src: list("10.0.0.0/8", "nowhere"), Table: "X", When: "method = 'INVITE'",
	}, 0)
	for _, want := range []string{`from_user[2] "a*b"`, `src[2] "nowhere"`, `table "X"`, "when:1:8:"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error = %v, want it to say %s", err, want)
		}
	}
}

func TestCompile_takesWhatOperatorsWrite(t *testing.T) {
	c := compiler(t)
	for _, r := range []trace.Rule{
		{Name: "A-1_b"},
		{Name: "r", Table: "sip_trace_alice", Users: list("alice", "ärger", "49 30"), UsersFrom: list("from", "to", "ruri")},
		{Name: "r", Destinations: list("sip:127.0.0.1:5085", "sip:h;transport=udp", "hep+tcp://homer.example.com", "hep+udp://[2001:db8::1]:9060?version=2&capture-id=7", "sip+udp://h:5060/?xheaders=1")},
		{Name: "r", Src: list("[2001:db8::/32]:5060", "2001:db8::1", "[::1]:5060", "[2001:db8::2]"), Sample: 0.01, Scope: "dialog"},
		{Name: "r", When: `(method in ["INVITE", "BYE"] || status >= 400) && !user_agent.matches("(?i)friendly-scanner|sipvicious")`},
		{Name: "r", When: `header("P-Asserted-Identity").contains("+4930") && header("X-Tenant") != ""`},
		{Name: "r", When: `transport in ["tls", "wss"] ? body_len > 1500 : src_ip.startsWith("10.")`},
		{Name: "r", Why: "ticket 4711 – für Alice"},
	} {
		if _, err := c.Compile(r, 0); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
}
