"""Prefect conducts what DVC orders: flows that build, update, retrain and compare, and their
deployments. The order of the stages is DVC's alone; what a stage does is irgen's."""
