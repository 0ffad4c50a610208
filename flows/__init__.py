"""Prefect flows: keep a project's index up to date, retrain its models, compare variants."""
