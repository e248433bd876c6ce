package app

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/fx/fxtest"

	"github.com/seed-452fa805/siptrace/internal/bus"
)

// oneState is a state in memory, for what NATS would do only by chance.
type oneState struct {
	bus.State
	away  error
	races int // how often somebody else is quicker
}

func (s *oneState) Get(context.Context) (bus.State, error) { return s.State, s.away }

func (s *oneState) Set(_ context.Context, next bus.State) (bus.State, error) {
	if s.races > 0 {
		s.races--
		s.Revision++
	}
	if next.Revision != s.Revision {
		return bus.State{}, bus.ErrConflict
	}
	next.Revision++
	s.State = next
	return next, s.away
}

// ask posts a request.
func ask(t *testing.T, h http.Handler, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodPost, "/RPC", strings.NewReader(body))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, strings.TrimSpace(w.Body.String())
}

// What Kamailio 5.6.3 answers to the same, over jsonrpcs and xhttp.
func TestRPC_answersWhatKamailioAnswers(t *testing.T) {
	const tooFew = `{"jsonrpc":"2.0","error":{"code":500,"message":"Not enough parameters (on, off or check)"},"id":1}`
	tests := []struct {
		in   string
		code int
		want string
	}{
		{`{"jsonrpc":"2.0","method":"siptrace.status","params":["check"],"id":1}`, 200, `{"jsonrpc":"2.0","result":"Enabled","id":1}`},
		{`{"jsonrpc":"2.0","method":"siptrace.status","params":["OFF"],"id":"a"}`, 200, `{"jsonrpc":"2.0","result":"Disabled","id":"a"}`},
		{`{"jsonrpc":"2.0","method":"siptrace.status","params":["check"],"id":1}`, 200, `{"jsonrpc":"2.0","result":"Disabled","id":1}`},
		{`{"jsonrpc":"2.0","method":"siptrace.status","params":{"x":"on"},"id":1}`, 200, `{"jsonrpc":"2.0","result":"Enabled","id":1}`},
		{`{"jsonrpc":"2.0","method":"siptrace.status","params":["check"]}`, 200, `{"jsonrpc":"2.0","result":"Enabled"}`},
		{`{"jsonrpc":"2.0","method":"siptrace.status","params":["bogus"],"id":1}`, 500, `{"jsonrpc":"2.0","error":{"code":500,"message":"Bad parameter (on, off or check)"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"siptrace.status","params":[],"id":1}`, 500, tooFew},
		{`{"jsonrpc":"2.0","method":"siptrace.status","id":1}`, 500, tooFew},
		{`{"jsonrpc":"2.0","method":"siptrace.status","params":[1],"id":1}`, 500, tooFew},
		{`{"jsonrpc":"2.0","method":"siptrace.nothing","params":["check"],"id":1}`, 500, `{"jsonrpc":"2.0","error":{"code":500,"message":"Method Not Found"},"id":1}`},
		{`{"jsonrpc":"2.0","method":"siptrace.status","params":["On","x"],"id":2}`, 200, `{"jsonrpc":"2.0","result":"Enabled","id":2}`},
	}
	h := &rpc{states: &oneState{State: bus.State{On: true}}, log: quietLog()}
	for _, tt := range tests {
		if code, got := ask(t, h, tt.in); code != tt.code || got != tt.want {
			t.Errorf("%s\ngot  %d %s\nwant %d %s", tt.in, code, got, tt.code, tt.want)
		}
	}
}

// Where Kamailio looks at the first letters only, says nothing, or hangs up.
func TestRPC_isStricterThanKamailio(t *testing.T) {
	h := &rpc{states: &oneState{State: bus.State{On: true}}, log: quietLog()}
	for in, want := range map[string]string{
		`{"method":"siptrace.status","params":["offline"],"id":1}`: rpcBadWord,
		`{"method":"siptrace.status","params":["once"],"id":1}`:    rpcBadWord,
		`{"method":"siptrace.status","params":[null],"id":1}`:      rpcTooFew,
		`{"method":"siptrace.status","params":"on","id":1}`:        rpcTooFew,
		`{"params":["on"],"id":1}`:                                 rpcNotFound,
		`[]`:                                                       rpcUnreadable,
		`garbage`:                                                  rpcUnreadable,
		``:                                                         rpcUnreadable,
		`{"method":"` + strings.Repeat("x", rpcMax) + `"}`: rpcUnreadable,
	} {
		code, body := ask(t, h, in)
		var reply rpcReply
		if err := json.Unmarshal([]byte(body), &reply); err != nil || code != 500 || reply.Error == nil || reply.Error.Message != want {
			t.Errorf("%.60s: %d %s, want 500 %q", in, code, body, want)
		}
	}
}

func TestRPC_saysWhenNATSIsAway(t *testing.T) {
	h := &rpc{states: &oneState{away: errors.New("connection refused")}, log: quietLog()}
	for _, word := range []string{"on", "off", "check"} {
		code, got := ask(t, h, `{"jsonrpc":"2.0","method":"siptrace.status","params":["`+word+`"],"id":1}`)
		if want := `{"jsonrpc":"2.0","error":{"code":500,"message":"NATS: connection refused"},"id":1}`; code != 500 || got != want {
			t.Errorf("%s: %d %s, want 500 %s", word, code, got, want)
		}
	}
}

func TestRPC_isForScriptsAlone(t *testing.T) {
	h := &rpc{states: &oneState{State: bus.State{On: true}}, log: quietLog()}
	tests := []struct {
		name, method, path, origin string
		want                       int
	}{
		{"GET", http.MethodGet, "/RPC", "", http.StatusMethodNotAllowed},
		{"another path", http.MethodPost, "/metrics", "", http.StatusNotFound},
		{"a web page", http.MethodPost, "/RPC", "http://example.com", http.StatusForbidden},
		{"the root", http.MethodPost, "/", "", http.StatusOK},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.path, strings.NewReader(`{"method":"siptrace.status","params":["check"]}`))
			if tt.origin != "" {
				r.Header.Set("Origin", tt.origin)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("%d, want %d", w.Code, tt.want)
			}
		})
	}
}

func TestRPC_ofTwoWhoSwitchTheLaterWins(t *testing.T) {
	s := &oneState{State: bus.State{On: true}, races: 3}
	if code, body := ask(t, &rpc{states: s, log: quietLog()}, `{"method":"siptrace.status","params":["off"]}`); code != 200 || s.On {
		t.Errorf("%d %s, on is %v", code, body, s.On)
	}
}

func TestRPC_switchesTheFleet(t *testing.T) {
	c := dial(t, startNATS(t).ClientURL())
	addr := freeAddr(t)
	lc := fxtest.NewLifecycle(t)
	if err := startRPC(lc, nil, addr, bus.NewStateStore(c), newPorts(false, quietLog())); err != nil {
		t.Fatal(err)
	}
	lc.RequireStart()
	defer lc.RequireStop()
	post := func(word string) string {
		t.Helper()
		r, err := http.Post("http://"+addr+"/RPC", "application/json", strings.NewReader(`{"jsonrpc":"2.0","method":"siptrace.status","params":["`+word+`"],"id":1}`))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(body))
	}
	for _, word := range []string{"check", "off", "check", "on", "check", "off"} {
		want := "Enabled"
		if word == "off" || word == "check" && strings.Contains(post("check"), "Disabled") {
			want = "Disabled"
		}
		if got := post(word); got != `{"jsonrpc":"2.0","result":"`+want+`","id":1}` {
			t.Errorf("%s: %s, want %s", word, got, want)
		}
		s, err := bus.NewStateStore(c).Get(t.Context())
		if err != nil || s.On != (want == "Enabled") {
			t.Errorf("%s: the state is %+v, %v", word, s, err)
		}
	}
	s, err := bus.NewStateStore(c).Get(t.Context())
	if err != nil || s.On || s.Who != "json-rpc from 127.0.0.1" || s.When.IsZero() {
		t.Errorf("the state is %+v, %v, want off by json-rpc from 127.0.0.1", s, err)
	}
}

func TestRPC_listensWhereOnlyThisMachineReaches(t *testing.T) {
	for addr, want := range map[string]string{":8080": "127.0.0.1:8080", "0.0.0.0:8080": "0.0.0.0:8080", "[::1]:1": "[::1]:1"} {
		if got := loopbackUnlessNamed(addr); got != want {
			t.Errorf("%s listens at %s, want %s", addr, got, want)
		}
	}
	for addr, good := range map[string]bool{"": true, ":8080": true, "127.0.0.1:0": true, "8080": false, "host:port": false} {
		if err := (&RPCFlags{JSONRPC: addr}).validate(); (err == nil) != good {
			t.Errorf("--jsonrpc %q: %v", addr, err)
		}
	}
	if err := startRPC(nil, nil, "192.0.2.1:1", nil, newPorts(false, quietLog())); err == nil {
		t.Error("an address that is not ours is listened at")
	}
	if err := startRPC(nil, nil, "", nil, nil); err != nil {
		t.Errorf("off: %v", err)
	}
}
