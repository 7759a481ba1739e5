"""The settings of gunicorn as settings of picowsgi's worker."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("gunicorn")

from gunicorn.config import Config

from picowsgi.contrib.gunicorn import Worker, settings_of

MIB = 1 << 20


def settings(**given: Any) -> Any:
    config = Config()
    for name, value in given.items():
        config.set(name, value)
    return settings_of(config)


def test_our_limit_of_a_head_holds_until_the_limits_of_gunicorn_are_changed() -> None:
    assert settings().max_head_size == 64 * 1024
    assert settings(limit_request_fields=50).max_head_size == 64 * 1024


@pytest.mark.parametrize(
    ("line", "fields", "size", "expected"),
    [
        (1000, 10, 100, 2000),  # a line and as many fields
        (100, 1, 20, 256),  # never less than a short request needs
        (4000, 1000, 8190, 4 * MIB),  # nor more than a head may have
        (0, 10, 100, 4 * MIB),  # 0: no limit, for gunicorn
        (1000, 10, 0, 4 * MIB),
    ],
)
def test_a_head_may_be_as_large_as_its_parts(
    line: int, fields: int, size: int, expected: int
) -> None:
    made = settings(
        limit_request_line=line, limit_request_fields=fields, limit_request_field_size=size
    )
    assert made.max_head_size == expected


def test_other_settings_are_passed_on() -> None:
    made = settings(
        threads=3, worker_connections=77, graceful_timeout=9, keepalive=4, limit_request_fields=50
    )
    assert (made.threads, made.max_connections, made.max_fields) == (3, 77, 50)
    assert (made.timeout_graceful, made.timeout_keep_alive) == (9, 4)
    assert settings(limit_request_fields=5000).max_fields == 1024


def test_the_proxies_that_gunicorn_trusts_are_trusted() -> None:
    made = settings()
    assert made.forwarded_allow_ips == ("127.0.0.1", "::1", "unix")
    assert not made.drops_forwarded
    made = settings(forwarded_allow_ips="10.0.0.1,192.168.0.0/16")
    assert made.forwarded_allow_ips == ("10.0.0.1", "192.168.0.0/16", "unix")
    assert made.drops_forwarded
    assert settings(forwarded_allow_ips="*").forwarded_allow_ips == ("*", "unix")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("off", False),
        (False, False),
        ("auto", True),
        (True, True),
        ("v1", True),
        ("v2", True),
    ],
)
def test_the_proxy_protocol_is_an_option_of_both(value: str | bool, expected: bool) -> None:
    assert settings(proxy_protocol=value).proxy_protocol == expected


def test_proxy_headers_come_from_the_proxies_that_are_trusted() -> None:
    allowed = "10.0.0.1,192.168.0.0/16"
    made = settings(proxy_protocol=True, proxy_allow_ips=allowed, forwarded_allow_ips=allowed)
    assert made.forwarded_allow_ips == ("10.0.0.1", "192.168.0.0/16", "unix")
    for lists in ({"proxy_allow_ips": allowed}, {"forwarded_allow_ips": allowed}):
        with pytest.raises(RuntimeError, match=r"set proxy_allow_ips .* to the same value"):
            settings(proxy_protocol=True, **lists)
    assert not settings(proxy_allow_ips=allowed).proxy_protocol  # gunicorn does not use it either


@pytest.mark.parametrize("name", ["certfile", "keyfile"])
def test_a_setting_without_effect_is_refused(name: str) -> None:
    config = Config()
    config.set(name, "/some/file")
    with pytest.raises(RuntimeError, match=f"cannot use {name}: TLS is not served"):
        Worker.check_config(config, None)
