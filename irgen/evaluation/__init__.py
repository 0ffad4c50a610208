"""What a search is worth: metrics, runs, drift and the gate of a release."""
