package sqlite

// Dialect is shown to tests, which look at the plans of its queries.
var Dialect = dialect
