"""Stages of the pipeline, one file each: it reads, calls what computes, and writes."""
