"""Compare variants of settings: train and search the same data sets with each, over seeds."""
