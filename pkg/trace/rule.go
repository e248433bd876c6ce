package trace

import "time"

// A Rule selects messages and says what becomes of them. It is plain data, the
// JSON that taps read; internal/rules gives it its meaning and says whether it
// is well formed.
//
// Every selector that is set must match. Within a list one value must match,
// and none of those that begin with "!". A value is the whole text, or a part
// of it: "49*" is a beginning, "*99" an end, "*pbx*" anything in between, "*"
// whatever is there; a backslash in front of a star or of the "!" makes it an
// ordinary character ("\*97"). Case counts, but not in domains, methods and
// names of header fields.
type Rule struct {
	Name string `json:"name"` // also the key it is stored under, and [Event.Rule]

	Methods    []string            `json:"methods,omitempty"` // of the request, or of the CSeq in a reply
	FromUser   []string            `json:"from_user,omitempty"`
	FromDomain []string            `json:"from_domain,omitempty"`
	ToUser     []string            `json:"to_user,omitempty"`
	ToDomain   []string            `json:"to_domain,omitempty"`
	RURIUser   []string            `json:"ruri_user,omitempty"`
	RURIDomain []string            `json:"ruri_domain,omitempty"`
	CallID     []string            `json:"call_id,omitempty"`
	Src        []string            `json:"src,omitempty"`     // address, network, :port, or both
	Dst        []string            `json:"dst,omitempty"`     // likewise
	Addr       []string            `json:"addr,omitempty"`    // likewise, of either side
	Headers    map[string][]string `json:"headers,omitempty"` // values by the name of a header field
	When       string              `json:"when,omitempty"`    // CEL; asked when all else matches

	// Scope is what a matching message brings along: [ScopeDialog] if empty.
	Scope string `json:"scope,omitempty"`

	Table        string   `json:"table,omitempty"`        // in place of the writer's default
	Users        []string `json:"users,omitempty"`        // a row for each
	UsersFrom    []string `json:"users_from,omitempty"`   // a row for the user of "from", "to", "ruri"
	Destinations []string `json:"destinations,omitempty"` // get a copy, in place of the default ones
	NoStore      bool     `json:"no_store,omitempty"`
	NoDuplicate  bool     `json:"no_duplicate,omitempty"`
	Drop         bool     `json:"drop,omitempty"` // matching messages do not pass, whatever else selects them

	Sample    float64   `json:"sample,omitempty"`     // percent of the calls that match; 0 is all
	Agents    []string  `json:"agents,omitempty"`     // only what these have captured: name or capture id
	Expires   time.Time `json:"expires,omitzero"`     // then it is as if it were not there; zero is never
	MaxEvents uint64    `json:"max_events,omitempty"` // on each tap; then the rule has ended there; 0 is no limit

	Who     string    `json:"who,omitempty"`
	Why     string    `json:"why,omitempty"`
	Created time.Time `json:"created,omitzero"`
}

// The scopes of a [Rule].
const (
	ScopeDialog  = "dialog"  // the message, and from then on all with its Call-ID
	ScopeMessage = "message" // the message alone
)

// The parts of a message that a [Rule] may take users from.
const (
	UserFrom = "from"
	UserTo   = "to"
	UserRURI = "ruri"
)

// Expired reports whether the rule has ended at now.
func (r *Rule) Expired(now time.Time) bool {
	return !r.Expires.IsZero() && !now.Before(r.Expires)
}
