"""Stages of the pipeline, one file each: ``run`` reads files, calls pure functions, writes files.

A stage has one name for its file, its section of ``params.yaml`` and its folder in ``data/``. To
add one, write its file and its settings in ``irgen/params/sections.py``, and name it in
``dvc.yaml`` and in ``STAGES`` of ``irgen/commands/stage.py``.
"""
