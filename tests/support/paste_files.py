"""A file for PasteDeploy and its application, as in a project of Pyramid or Zope."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

# The sections of Pyramid's and Zope's usual files.
INI = """
    [app:main]
    use = call:{module}:main
    greeting = hello

    [app:other]
    use = call:{module}:main
    greeting = good day

    [pipeline:piped]
    pipeline = other

    [server:main]
    use = egg:{server}#main
    listen = 127.0.0.1:0
    threads = 3

    [loggers]
    keys = root, shop

    [handlers]
    keys = console

    [formatters]
    keys = generic

    [logger_root]
    level = INFO
    handlers = console

    [logger_shop]
    level = DEBUG
    handlers =
    qualname = shop

    [handler_console]
    class = StreamHandler
    args = (sys.stderr,)
    level = NOTSET
    formatter = generic

    [formatter_generic]
    format = %(levelname)-5.5s [%(name)s:%(lineno)s] %(message)s
"""
PLAIN = """
import logging

def main(global_config, greeting):
    def app(environ, start_response):
        logging.getLogger("shop").debug("asked for %s", environ["PATH_INFO"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [greeting.encode()]
    return app
"""


def write_shop(directory: Path, app: str = PLAIN, server: str = "picowsgi", **changes: str) -> Path:
    """Write `shop_app.py` and `shop.ini`. `threads="x"` replaces the line with that value."""
    text = dedent(INI).format(module="shop_app", server=server)
    for name, value in changes.items():
        lines = (value if line.startswith(f"{name} = ") else line for line in text.splitlines())
        text = "\n".join(lines)
    (directory / "shop_app.py").write_text(app)
    (directory / "shop.ini").write_text(text)
    return directory / "shop.ini"
