"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from support.command import command, picowsgi

__all__ = ["command", "picowsgi"]
