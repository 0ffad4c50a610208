"""Images of the served index: read, drawn small, added, replaced and removed."""
