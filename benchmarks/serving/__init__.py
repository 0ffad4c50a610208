"""Run the service for benchmarks, with clients and with changes meanwhile."""
