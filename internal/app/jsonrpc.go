package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"go.uber.org/fx"

	"github.com/seed-452fa805/siptrace/internal/bus"
)

// RPCFlags choose where a tap answers Kamailio's siptrace.status.
type RPCFlags struct {
	JSONRPC string `name:"jsonrpc" help:"Address for JSON-RPC 2.0 over HTTP, with Kamailio's siptrace.status on|off|check; an empty host is 127.0.0.1. Whoever reaches it may switch the fleet." placeholder:"HOST:PORT"`
}

func (f *RPCFlags) validate() error {
	if f.JSONRPC == "" {
		return nil
	}
	return checkAddr("--jsonrpc", f.JSONRPC)
}

const (
	// rpcTime is how long the state may take to be read or written.
	rpcTime = 5 * time.Second

	// rpcMax is the longest request that is read, in bytes.
	rpcMax = 64 << 10

	// rpcFault is the code of every error, as in Kamailio.
	rpcFault = 500
)

// What Kamailio's siptrace says.
const (
	rpcEnabled    = "Enabled"
	rpcDisabled   = "Disabled"
	rpcTooFew     = "Not enough parameters (on, off or check)"
	rpcBadWord    = "Bad parameter (on, off or check)"
	rpcNotFound   = "Method Not Found"
	rpcStatus     = "siptrace.status"
	rpcUnreadable = "Invalid Request"
)

// states is the global state; [bus.StateStore] is one.
type states interface {
	Get(ctx context.Context) (bus.State, error)
	Set(ctx context.Context, next bus.State) (bus.State, error)
}

// rpc answers what scripts ask of Kamailio's siptrace, over HTTP:
//
//	POST /RPC  {"jsonrpc": "2.0", "method": "siptrace.status", "params": ["check"], "id": 1}
//	200        {"jsonrpc": "2.0", "result": "Enabled", "id": 1}
//	500        {"jsonrpc": "2.0", "error": {"code": 500, "message": "Bad parameter (on, off or check)"}, "id": 1}
//
// Words and codes are those of Kamailio's jsonrpcs module. Unlike there, on and
// off hold for the whole fleet, and only the whole words count.
type rpc struct {
	states states
	log    *slog.Logger
}

// rpcRequest is what comes.
type rpcRequest struct {
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	ID     json.RawMessage `json:"id"`
}

// rpcReply is what goes back: a result or an error.
type rpcReply struct {
	Version string          `json:"jsonrpc"`
	Result  string          `json:"result,omitempty"`
	Error   *rpcError       `json:"error,omitempty"`
	ID      json.RawMessage `json:"id,omitempty"`
}

type rpcError struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// ServeHTTP answers one request.
func (h *rpc) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != "/" && r.URL.Path != "/RPC":
		http.NotFound(w, r)
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "POST a JSON-RPC request", http.StatusMethodNotAllowed)
		return
	case r.Header.Get("Origin") != "":
		http.Error(w, "not for web pages", http.StatusForbidden)
		return
	}
	var req rpcRequest
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, rpcMax))
	if err == nil {
		err = json.Unmarshal(body, &req)
	}
	reply := rpcReply{Version: "2.0", ID: req.ID}
	if err != nil {
		reply.Error = &rpcError{rpcFault, rpcUnreadable}
	} else {
		reply.Result, reply.Error = h.call(r, &req)
	}
	w.Header().Set("Content-Type", "application/json")
	if reply.Error != nil {
		w.WriteHeader(reply.Error.Code)
	}
	if err := json.NewEncoder(w).Encode(reply); err != nil {
		h.log.Debug("json-rpc not answered", "err", err)
	}
}

// call does what is asked for.
func (h *rpc) call(r *http.Request, req *rpcRequest) (string, *rpcError) {
	if req.Method != rpcStatus {
		return "", &rpcError{rpcFault, rpcNotFound}
	}
	word, ok := firstWord(req.Params)
	if !ok {
		return "", &rpcError{rpcFault, rpcTooFew}
	}
	ctx, cancel := context.WithTimeout(r.Context(), rpcTime)
	defer cancel()
	var on bool
	var err error
	switch strings.ToLower(word) {
	case "check":
		on, err = h.check(ctx)
	case "on", "off":
		on = strings.EqualFold(word, "on")
		err = h.set(ctx, on, r.RemoteAddr)
	default:
		return "", &rpcError{rpcFault, rpcBadWord}
	}
	if err != nil {
		h.log.Warn("json-rpc failed", "from", r.RemoteAddr, "word", strings.ToLower(word), "err", err)
		return "", &rpcError{rpcFault, "NATS: " + err.Error()}
	}
	if on {
		return rpcEnabled, nil
	}
	return rpcDisabled, nil
}

// firstWord is the first parameter, of a list or of an object, if it is a text.
func firstWord(params json.RawMessage) (string, bool) {
	var list []json.RawMessage
	if json.Unmarshal(params, &list) != nil {
		var named map[string]json.RawMessage
		if json.Unmarshal(params, &named) != nil || len(named) != 1 {
			return "", false
		}
		for _, v := range named {
			list = append(list, v)
		}
	}
	if len(list) == 0 {
		return "", false
	}
	var word *string
	if json.Unmarshal(list[0], &word) != nil || word == nil {
		return "", false
	}
	return *word, true
}

// check reports whether tracing is on.
func (h *rpc) check(ctx context.Context) (bool, error) {
	s, err := h.states.Get(ctx)
	return s.Effective(time.Now()), err
}

// set switches the fleet. Of two who switch at the same time the later wins.
func (h *rpc) set(ctx context.Context, on bool, from string) error {
	host, _, err := net.SplitHostPort(from)
	if err != nil {
		host = from
	}
	for {
		before, err := h.states.Get(ctx)
		if err != nil {
			return err
		}
		_, err = h.states.Set(ctx, bus.State{
			On: on, Who: "json-rpc from " + host, When: time.Now().UTC(), Revision: before.Revision,
		})
		if !errors.Is(err, bus.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
}

// serveRPC answers JSON-RPC for as long as the app lives, if it is to.
func serveRPC(lc fx.Lifecycle, sd fx.Shutdowner, f TapFlags, c *bus.Conn, p *ports) error {
	return startRPC(lc, sd, f.JSONRPC, bus.NewStateStore(c), p)
}

func startRPC(lc fx.Lifecycle, sd fx.Shutdowner, addr string, st states, p *ports) error {
	if addr == "" {
		return nil
	}
	open := func() (net.Listener, error) {
		ln, err := net.Listen("tcp", loopbackUnlessNamed(addr))
		if err != nil {
			return nil, fmt.Errorf("json-rpc: %w", err)
		}
		return ln, nil
	}
	return atPort(lc, sd, p, "json-rpc", open, func(ctx context.Context, ln net.Listener) error {
		server := &http.Server{
			Handler:           &rpc{states: st, log: p.log},
			ReadHeaderTimeout: rpcTime,
			ReadTimeout:       2 * rpcTime,
			WriteTimeout:      3 * rpcTime,
			ErrorLog:          slog.NewLogLogger(p.log.Handler(), slog.LevelDebug),
		}
		p.log.Info("json-rpc ready", "addr", ln.Addr().String())
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
				p.log.Error("json-rpc ended", "err", err)
			}
		})
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), httpTime)
		defer cancel()
		err := server.Shutdown(stop)
		wg.Wait()
		return err
	})
}

// loopbackUnlessNamed is an address that only this machine reaches, unless it
// names a host.
func loopbackUnlessNamed(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err == nil && host == "" {
		return net.JoinHostPort("127.0.0.1", port)
	}
	return addr
}
