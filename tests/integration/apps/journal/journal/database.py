"""One SQLite connection for each request."""

import sqlite3
from pathlib import Path

import click
from flask import current_app, g

SCHEMA = """
CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, password TEXT NOT NULL);
CREATE TABLE entry (
    id INTEGER PRIMARY KEY,
    author INTEGER NOT NULL REFERENCES person (id),
    title TEXT NOT NULL,
    text TEXT NOT NULL
);
"""


def database():
    if "database" not in g:
        g.database = sqlite3.connect(Path(current_app.instance_path) / "journal.sqlite", timeout=20)
        g.database.row_factory = sqlite3.Row
    return g.database


def close(_error=None):
    opened = g.pop("database", None)
    if opened is not None:
        opened.close()


@click.command("create-tables")
def create():
    """Create the tables."""
    database().executescript(SCHEMA)
