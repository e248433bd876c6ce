package rules

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// activation is a message as an expression sees it. Nothing is read before it
// is asked for.
type activation struct{ m *message }

// evaluate asks an expression about m.
func (m *message) evaluate(program cel.Program) (bool, error) {
	out, _, err := program.Eval(&activation{m})
	if err != nil {
		return false, err
	}
	yes, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("expression came to a %s", out.Type().TypeName())
	}
	return yes, nil
}

// ResolveName returns the value of a variable.
func (a *activation) ResolveName(name string) (any, bool) {
	m := a.m
	switch name {
	case headersOf:
		return a, true
	case "src_ip":
		return types.String(m.event.Src.Addr().String()), true
	case "src_port":
		return types.Int(m.event.Src.Port()), true
	case "dst_ip":
		return types.String(m.event.Dst.Addr().String()), true
	case "dst_port":
		return types.Int(m.event.Dst.Port()), true
	case "transport":
		return types.String(m.event.Transport.String()), true
	case "direction":
		return types.String(m.event.Direction.String()), true
	case "agent":
		return text(m.event.Agent.Name, maxShort), true
	case "agent_id":
		return types.Int(m.event.Agent.ID), true
	case "method":
		return text(m.words[method], maxShort), true
	case "call_id":
		return text(m.words[callID], maxShort), true
	case "from_user":
		return text(m.words[fromUser], maxShort), true
	case "to_user":
		return text(m.words[toUser], maxShort), true
	case "ruri_user":
		return text(m.words[ruriUser], maxShort), true
	}
	return a.scanned(name)
}

// scanned returns the value of a variable that only SIP has; for anything else
// it is empty.
func (a *activation) scanned(name string) (any, bool) {
	scan, b := a.m.scan, a.m.event.Payload
	number := func(f func() int) (any, bool) {
		if scan == nil {
			return types.Int(0), true
		}
		return types.Int(f()), true
	}
	words := func(f func() []byte) (any, bool) {
		if scan == nil {
			return types.String(""), true
		}
		return text(view(f()), maxShort), true
	}
	host := func(f func() []byte) (any, bool) {
		if scan == nil {
			return types.String(""), true
		}
		return text(a.m.domain(view(f())), maxShort), true
	}
	switch name {
	case "status":
		return number(func() int { return scan.Status })
	case "body_len":
		return number(func() int { return int(scan.Body.Len) })
	case "from_host":
		return host(func() []byte { return scan.FromHost.Of(b) })
	case "to_host":
		return host(func() []byte { return scan.ToHost.Of(b) })
	case "ruri_host":
		return host(func() []byte { return scan.RURIHost.Of(b) })
	case "user_agent":
		return words(func() []byte { return scan.UserAgent.Of(b) })
	case "content_type":
		return words(func() []byte { return scan.ContentType.Of(b) })
	}
	return nil, false
}

// header is the value of the first header field of a name, or "".
func (a *activation) header(name string) string {
	if a.m.scan == nil {
		return ""
	}
	value, _ := a.m.scan.Header(a.m.event.Payload, name)
	return string(text(a.m.unfold(value), maxLong))
}

// text is a copy of at most the first most bytes of s, in UTF-8.
func text(s string, most int) types.String {
	return types.String(strings.ToValidUTF8(strings.Clone(s[:min(len(s), most)]), "\uFFFD"))
}

// Parent returns nil: there is nothing else to name.
func (*activation) Parent() cel.Activation { return nil }

// The message is a value of its own type that can do nothing but be handed on
// to header().

// ConvertToNative fails.
func (*activation) ConvertToNative(reflect.Type) (any, error) {
	return nil, errors.New("a message has no other form")
}

// ConvertToType fails.
func (*activation) ConvertToType(ref.Type) ref.Val {
	return types.NewErr("a message has no other type")
}

// Equal is the same message.
func (a *activation) Equal(other ref.Val) ref.Val { return types.Bool(ref.Val(a) == other) }

// Type is the type of messages.
func (*activation) Type() ref.Type { return cel.OpaqueType(headersOf) }

// Value is the message.
func (a *activation) Value() any { return a }
