"""What the serving threads of one server keep together (`picowsgi.wsgi.environ.SharedState`)."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from picowsgi import core
from picowsgi.wsgi.environ import SharedState


@pytest.fixture
def news(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return what the core will say, to be filled by the test."""
    waiting: list[int] = []
    monkeypatch.setattr(core, "next_news", lambda _: waiting[0] if waiting else -1)
    monkeypatch.setattr(core, "news_done", lambda _: waiting.pop(0))
    return waiting


def test_the_templates_of_an_entry_go_together(news: list[int]) -> None:
    """A number of a connection that has ended must not find the environ of its client."""
    server: Any = SimpleNamespace(loans={})
    thread: Any = SimpleNamespace(pointer=None)
    kept = SharedState(server)
    stays, goes = (number << core.ENTRY_SHIFT for number in (3, 4))
    kept.put_template(thread, stays, {"HTTP_COOKIE": "stays"})
    kept.put_template(thread, goes, {"HTTP_COOKIE": "goes"})
    news.append(4 << 1)
    kept.take_news(thread)
    assert news == []
    found = [
        kept.templates[stays | core.SAME],
        kept.changed[stays | core.CHANGED],
        kept.with_content[stays | core.SAME | core.CONTENT],
    ]
    assert [environ["HTTP_COOKIE"] for environ in found] == ["stays"] * 3
    assert [len(all_) for all_ in (kept.templates, kept.changed, kept.with_content)] == [1] * 3
