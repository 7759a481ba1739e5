"""Pages that picowsgi makes itself, as WSGI applications or parts of one.

They know how they look, and import only `log` and `errors`.
"""
