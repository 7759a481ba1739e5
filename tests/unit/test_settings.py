"""The promises to users: documented defaults, limits, and the options of --help."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from picowsgi.config.settings import OPTIONS, Settings

NOTES = Path(__file__).resolve().parents[2] / "docs" / "option-notes.md"
SIZE_MOST = 2**63 - 1
DAY = "1440m"

# A tighter limit breaks configurations that worked. Options that are not here have none.
LIMITS = {
    "port": ("0", "65535"),
    "backlog": ("1", "65535"),
    "unix_socket_mode": ("0", "777"),
    "workers": ("1", "1024"),
    "threads": ("1", "4096"),
    "loops": ("0", "1024"),
    "drain_delay": ("0", "86400"),
    "max_requests": ("0", str(2**62)),
    "max_requests_jitter": ("0", str(2**62)),
    "max_worker_rss": ("0", str(SIZE_MOST)),
    "umask": ("0", "777"),
    "max_connections": ("1", "1000000"),
    "max_head_size": ("256", "4M"),
    "head_memory_total": ("64K", str(SIZE_MOST)),
    "max_fields": ("1", "1024"),
    "max_body_size": ("0", str(SIZE_MOST)),
    "body_memory": ("0", "1G"),
    "body_memory_total": ("0", str(SIZE_MOST)),
    "response_buffer": ("1K", "1G"),
    "response_spool": ("0", str(2**62)),
    "timeout_head": ("0.001", DAY),
    "timeout_body": ("0.001", DAY),
    "timeout_write": ("0.001", DAY),
    "timeout_keep_alive": ("0.001", DAY),
    "timeout_drain": ("0", "1h"),
    "timeout_graceful": ("0", DAY),
    "timeout_request": ("0", DAY),
    "timeout_queue": ("0", DAY),
    "timeout_worker": ("0", DAY),
    "access_log_slow": ("0", DAY),
}
EVERYDAY = """
    host port bind env_file mount reload debug open static workers threads access_log log_level
"""
REPEATABLE = """
    bind forwarded_allow_ips app_dir env_file mount reload_dir reload_include reload_exclude static
"""


def documented() -> dict[str, str]:
    """The default of each option in the table of the page."""
    found = {}
    for line in NOTES.read_text("utf-8").splitlines():
        row = re.match(r"\| (`--[^|]*) \|([^|]*)\|", line)
        if row is None:
            continue
        names = [name for name in re.findall(r"--([a-z-]+)", row[1]) if not name.startswith("no-")]
        defaults = row[2].strip().split(", ")
        if len(defaults) == 1:
            defaults *= len(names)
        found.update(zip((name.replace("-", "_") for name in names), defaults, strict=True))
    return found


def test_the_defaults_are_those_of_the_documentation() -> None:
    notes = documented()
    assert set(notes) == set(OPTIONS)
    for name, shown in notes.items():
        option = OPTIONS[name]
        if option.switch:
            assert (shown, option.default) == ("in a terminal", "auto")
            continue
        text = shown.replace(" s", "s")
        assert option.convert(text or option.show(option.default)) == option.default, name
        assert (shown == "") == (option.show(option.default) == ""), name


def test_settings_have_the_defaults() -> None:
    settings = Settings()
    for name, option in OPTIONS.items():
        assert getattr(settings, name) == option.default


def test_every_option_with_limits_is_in_the_table() -> None:
    assert {name for name, option in OPTIONS.items() if option.minimum is not None} == set(LIMITS)


@pytest.mark.parametrize("name", LIMITS)
def test_the_limits_are_accepted_and_values_beyond_them_are_refused(name: str) -> None:
    option = OPTIONS[name]
    low, high = (option.convert(text) for text in LIMITS[name])
    step = 1e-4 if option.kind == "seconds" else 1
    if option.kind == "octal":
        assert (low, high) == (0, 0o777)
        low = -1  # which means that the system default stays
    for beyond in (low - step, high + step):  # type: ignore[operator]
        with pytest.raises(ValueError, match=r"a whole number|a size|a time|octal digits"):
            option.convert(beyond)


def test_help_shows_the_everyday_options() -> None:
    assert [name for name, option in OPTIONS.items() if option.everyday] == EVERYDAY.split()


def test_lists_can_be_repeated() -> None:
    assert [name for name, one in OPTIONS.items() if one.kind == "list"] == REPEATABLE.split()


def test_switches_have_two_flags() -> None:
    assert [name for name, one in OPTIONS.items() if one.switch] == [
        "live_reload",
        "access_log",
    ]


@pytest.mark.parametrize(
    "path", ["/health", "/", "/a/b-c.d~!", "/%20", ""], ids=lambda path: path or "none"
)
def test_a_health_path_is_printable_ascii(path: str) -> None:
    assert OPTIONS["health"].convert(path) == path


@pytest.mark.parametrize("path", ["health", "/a b", "/\xe9", "/a?b", "/a#b", "?", "#", " /a"])
def test_an_invalid_health_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="begins with /, without"):
        OPTIONS["health"].convert(path)
