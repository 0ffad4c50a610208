"""The trained models and the identifiers on disk: each file rebuilds what it holds by itself."""
