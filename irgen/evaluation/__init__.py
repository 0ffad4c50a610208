"""Measure search: metrics, runs, drift, and the gate that an index passes before it is served."""
