"""Encode images: batches, cached features and views."""
