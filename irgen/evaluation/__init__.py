"""What a search is worth: metrics, runs, comparisons, figures and the page a person reads."""
