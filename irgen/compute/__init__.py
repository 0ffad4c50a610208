"""Computations: device and precision, processes, seeds, batches, and checks of their results."""
