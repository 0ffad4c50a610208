"""Pages for people: search, catalogue, code tree, edits and state, rendered on the server."""
