"""What benchmarks/index.py is made of: data, baselines, stopwatch, tables and plots."""
