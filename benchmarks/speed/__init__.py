"""Parts of benchmarks/index.py: data, baselines, stopwatch, tables and plots."""
