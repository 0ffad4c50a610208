"""Parts of benchmarks/serve.py: the service, its clients, and what happens to it meanwhile."""
