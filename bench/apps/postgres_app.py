"""The application of the scenario `postgres`: one query that returns twenty rows in each request.

Connections come from psycopg's pool. `BENCH_POSTGRES` in the environment is the connection string.
Imports psycopg only when a request asks for it, so that the harness can do without.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

#: Connections, one for each thread of the servers that have sixteen.
CONNECTIONS = 16
#: As the SQL has them.
TABLE_ROWS = 1000
QUERY_ROWS = 20
TABLE = """
CREATE TABLE items (id integer PRIMARY KEY, name text NOT NULL);
INSERT INTO items SELECT number, 'item ' || number FROM generate_series(0, 999) number;
ANALYZE items;
"""
QUERY = "SELECT id, name FROM items WHERE id >= %s ORDER BY id LIMIT 20"

_pool: Any = None
_lock = threading.Lock()


def rows(first: int) -> list[tuple[int, str]]:
    """What the query returns."""
    return [(number, f"item {number}") for number in range(first, first + QUERY_ROWS)]


def page(found: Iterable[tuple[int, str]]) -> bytes:
    return "".join(f"{number:6}: {name:>10}\n" for number, name in found).encode("ascii")


def pool() -> Any:
    """The pool of this process, made by its first request: some servers fork after the import."""
    global _pool  # noqa: PLW0603
    with _lock:
        if _pool is None:
            from psycopg_pool import ConnectionPool

            _pool = ConnectionPool(
                os.environ["BENCH_POSTGRES"],
                min_size=CONNECTIONS,
                max_size=CONNECTIONS,
                kwargs={"autocommit": True},
                open=True,
            )
    return _pool


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    first = int(environ["PATH_INFO"][1:])
    with (_pool or pool()).connection() as connection:
        content = page(connection.execute(QUERY, (first,)).fetchall())
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(content)))]
    start_response("200 OK", headers)
    return [content]
