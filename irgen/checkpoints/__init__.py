"""Save and load trained models and identifiers. Each file suffices to rebuild its content."""
