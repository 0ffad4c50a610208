"""Stages of the pipeline, one file each: ``run`` reads files, calls pure functions, writes files.

A stage has one name for its file, its section of ``params.yaml`` and its folder in ``data/``. To
add one, write its file, add it to ``dvc.yaml`` and to ``STAGES`` in ``irgen/cli.py``, and write its
settings in ``irgen/params/sections.py``.
"""
