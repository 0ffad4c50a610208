"""MLflow, imported in this folder only: runs, the registry of models, and the model it serves."""
