"""Published data sets: one reader each, all of one signature, named in `../formats.py`."""
