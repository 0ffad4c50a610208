"""Releases: numbered copies of indexes that never change; one, the champion, is served.

To add a rule that a release must pass, see ``irgen/evaluation/gate.py``.
"""
