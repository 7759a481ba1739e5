"""The application: its import by name, the middleware around it, and picowsgi's own pages.

May import `core`, `config` and the packages below them, and none of the packages that serve.
"""
