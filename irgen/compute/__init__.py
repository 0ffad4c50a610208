"""Computations: device and precision, seeds, batches, and checks of their results."""
