"""Search the served index over HTTP: an API for applications and a page for people.

``app.py`` puts the parts together. A request goes through ``access`` (limits, request id, log),
``routes`` or ``page``, ``workers`` (decoding), ``batching`` and ``search``, to the index that
``champion`` follows. A change goes through ``write_routes``, ``workers`` and ``batching`` to
``writer``, which takes ``turns`` at the index with other programs.
"""
