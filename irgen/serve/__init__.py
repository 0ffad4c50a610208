"""Search the served index over HTTP: an API for applications and pages for people.

``launch.py`` runs the service, ``app.py`` puts it together. A request goes through ``access``
(tokens, limits, request id, log) to a route of ``api`` or ``pages``. A search goes on through
``service``, ``workers`` (decoding), ``batching`` and ``query`` to the index that ``champion``
follows. ``content`` reads the images of that index, and its ``writer`` changes them.
"""
