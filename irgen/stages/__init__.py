"""The stages of the pipeline, one file each: reads, calls what computes, writes."""
