"""Images through an encoder: batches, cached features and views."""
