package rules

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// The bounds of an expression. Without macros there are no loops, so that what
// it costs is known beforehand.
const (
	maxExpression = 2048 // characters
	maxNodes      = 200
	maxRegex      = 100  // instructions of all regular expressions: each byte of a text may meet them all
	maxCost       = 1000 // as CEL reckons it
	maxShort      = 255  // bytes of a variable that an expression sees
	maxLong       = 1024 // and of a header field
)

// headerOf is what header("Name") becomes; nobody can write it.
const (
	headerOf  = "@header"
	headersOf = "@message"
)

// variables are what an expression may name.
func variables() map[string]*cel.Type {
	return map[string]*cel.Type{
		"method": cel.StringType, "status": cel.IntType,
		"from_user": cel.StringType, "from_host": cel.StringType,
		"to_user": cel.StringType, "to_host": cel.StringType,
		"ruri_user": cel.StringType, "ruri_host": cel.StringType,
		"call_id": cel.StringType, "user_agent": cel.StringType, "content_type": cel.StringType,
		"src_ip": cel.StringType, "src_port": cel.IntType,
		"dst_ip": cel.StringType, "dst_port": cel.IntType,
		"transport": cel.StringType, "direction": cel.StringType,
		"agent": cel.StringType, "agent_id": cel.IntType,
		"body_len": cel.IntType,
	}
}

// short tells the variables of which an expression sees at most maxShort bytes.
func short(name string) bool {
	return strings.HasSuffix(name, "_user") || strings.HasSuffix(name, "_host") ||
		name == "method" || name == "call_id" || name == "agent" || name == "user_agent" || name == "content_type"
}

// tiny tells the variables that are a few letters.
func tiny(name string) bool {
	return name == "transport" || name == "direction" || strings.HasSuffix(name, "_ip")
}

// An environment compiles expressions. It is for several goroutines.
type environment struct{ cel *cel.Env }

// newEnvironment returns the environment of all rules.
func newEnvironment() (*environment, error) {
	message := cel.OpaqueType(headersOf)
	options := []cel.EnvOption{
		cel.ClearMacros(),
		cel.Macros(cel.GlobalMacro("header", 1, expandHeader)),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ExpressionNodeLimit(maxNodes),
		cel.RegexProgramSizeLimit(maxRegex),
		cel.Variable(headersOf, message),
		cel.Function(headerOf, cel.Overload(headerOf, []*cel.Type{message, cel.StringType}, cel.StringType,
			cel.BinaryBinding(func(m, name ref.Val) ref.Val {
				return types.String(m.(*activation).header(string(name.(types.String))))
			}))),
	}
	for name, t := range variables() {
		options = append(options, cel.Variable(name, t))
	}
	env, err := cel.NewEnv(options...)
	if err != nil {
		return nil, fmt.Errorf("expressions: %w", err)
	}
	return &environment{env}, nil
}

// expandHeader makes header("Name") a call that gets the message, too.
func expandHeader(f cel.MacroExprFactory, _ ast.Expr, args []ast.Expr) (ast.Expr, *cel.Error) {
	if name, ok := literal(args[0]); !ok || !headerName(name) {
		return nil, f.NewError(args[0].ID(), `header() wants the name of a header field in quotes: header("User-Agent")`)
	}
	return f.NewCall(headerOf, f.NewIdent(headersOf), args[0]), nil
}

// literal is the text of a constant.
func literal(e ast.Expr) (string, bool) {
	if e.Kind() != ast.LiteralKind {
		return "", false
	}
	s, ok := e.AsLiteral().(types.String)
	return string(s), ok
}

// compile makes a program of an expression, or says where it is wrong.
func (env *environment) compile(text string) (cel.Program, error) {
	checked, issues := env.cel.Compile(text)
	if err := issues.Err(); err != nil {
		return nil, expressionError(issues)
	}
	if !checked.OutputType().IsExactType(cel.BoolType) {
		return nil, &FieldError{Field: "when", Err: fmt.Errorf("is a %s, and must be true or false", checked.OutputType())}
	}
	if err := constantPatterns(checked); err != nil {
		return nil, err
	}
	estimate, err := env.cel.EstimateCost(checked, sizes{})
	if err != nil {
		return nil, &FieldError{Field: "when", Err: err}
	}
	if estimate.Max > maxCost {
		return nil, &FieldError{Field: "when", Err: fmt.Errorf("may cost %d, more than %d, for each message: leave the users, addresses and methods to selectors, or shorten patterns", estimate.Max, maxCost)}
	}
	program, err := env.cel.Program(checked, cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, &FieldError{Field: "when", Err: err}
	}
	return program, nil
}

// expressionError tells the first faults with line and column.
func expressionError(issues *cel.Issues) error {
	const most = 3
	var all []error
	for i, e := range issues.Errors() {
		if i == most {
			break
		}
		message := strings.ReplaceAll(e.Message, " (in container '')", "")
		if e.Location == nil || e.Location.Line() < 1 {
			all = append(all, &FieldError{Field: "when", Err: errors.New(message)})
			continue
		}
		all = append(all, &FieldError{Field: fmt.Sprintf("when:%d:%d:", e.Location.Line(), e.Location.Column()+1), Err: errors.New(message)})
	}
	return errors.Join(all...)
}

// constantPatterns refuses regular expressions that come from messages, for a
// stranger would write them, and those that are too large together: CEL reckons
// with the length of their text, which counts (x?){200} as nine.
func constantPatterns(checked *cel.Ast) error {
	tree, size := checked.NativeRep(), 0
	var err error
	ast.PostOrderVisit(tree.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		if e.Kind() != ast.CallKind || e.AsCall().FunctionName() != "matches" {
			return
		}
		args := e.AsCall().Args()
		pattern, ok := literal(args[len(args)-1])
		size += instructions(pattern)
		fault := ""
		switch {
		case !ok:
			fault = "matches() wants its pattern in quotes"
		case size > maxRegex:
			fault = fmt.Sprintf("patterns come to %d instructions, more than %d: repeat less", size, maxRegex)
		default:
			return
		}
		at := tree.SourceInfo().GetStartLocation(e.ID())
		err = &FieldError{Field: fmt.Sprintf("when:%d:%d:", at.Line(), at.Column()+1), Err: errors.New(fault)}
	}))
	return err
}

// instructions is how large a regular expression is; 0 if it is none, which
// CEL will say.
func instructions(pattern string) int {
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return 0
	}
	program, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return 0
	}
	return len(program.Inst)
}

// sizes tells CEL how long the texts are that an expression sees.
type sizes struct{}

// EstimateSize bounds a variable.
func (sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	path := n.Path()
	switch {
	case len(path) != 1:
		return nil
	case tiny(path[0]):
		return &cost.SizeEstimate{Max: 64}
	case short(path[0]):
		return &cost.SizeEstimate{Max: maxShort}
	}
	return &cost.SizeEstimate{Max: maxLong}
}

// EstimateCallCost bounds header(), which goes through the message once.
func (sizes) EstimateCallCost(function, _ string, _ *cost.AstNode, _ []cost.AstNode) *cost.CallEstimate {
	if function != headerOf {
		return nil
	}
	const walk = 50
	return cost.NewCallEstimate(cost.Estimate{Min: 1, Max: walk}, &cost.SizeEstimate{Max: maxLong})
}
