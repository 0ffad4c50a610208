"""Comparisons: the same data set trained and searched in many ways, over several seeds."""
