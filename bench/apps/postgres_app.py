"""The application of the scenario `postgres`: each request sends a query for twenty rows.

The connections come from psycopg's pool. The environment variable `BENCH_POSTGRES` is the
connection string. Imports psycopg only in a request, so the benchmark itself does not need it.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse, WSGIEnvironment

#: Open connections: one for each of the sixteen threads of a server.
CONNECTIONS = 16
#: The same numbers as in the SQL below.
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
    """Return the rows that the query returns."""
    return [(number, f"item {number}") for number in range(first, first + QUERY_ROWS)]


def page(found: Iterable[tuple[int, str]]) -> bytes:
    return "".join(f"{number:6}: {name:>10}\n" for number, name in found).encode("ascii")


def pool() -> Any:
    """Return the pool of this process. The first request opens it, because some servers fork."""
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
