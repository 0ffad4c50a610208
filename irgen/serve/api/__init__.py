"""HTTP API: routes, the fields of requests and answers, and errors as problem documents."""
