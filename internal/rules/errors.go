package rules

import "fmt"

// A FieldError says what is wrong with one field of a rule.
type FieldError struct {
	Field string // as in the JSON of [trace.Rule]: "from_user"
	Index int    // of the value in its list, from 1; 0 where there is no list
	Value string
	Err   error
}

func (e *FieldError) Error() string {
	field := e.Field
	if e.Index > 0 {
		field = fmt.Sprintf("%s[%d]", e.Field, e.Index)
	}
	if e.Value == "" {
		return fmt.Sprintf("%s %v", field, e.Err)
	}
	return fmt.Sprintf("%s %q %v", field, shortened(e.Value), e.Err)
}

func (e *FieldError) Unwrap() error { return e.Err }

// fieldError is the fault of value i, counted from 0, of a list.
func fieldError(field string, i int, value string, err error) error {
	return &FieldError{Field: field, Index: i + 1, Value: value, Err: err}
}

// shortened cuts what somebody may have made long.
func shortened(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
