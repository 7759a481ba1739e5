"""The forms of the ADDRESS of `picowsgi top`."""

from __future__ import annotations

import pytest

from picowsgi.top.address import Address, parse_address


@pytest.mark.parametrize(
    ("text", "host", "port", "target", "authority"),
    [
        ("127.0.0.1:9000", "127.0.0.1", 9000, "/metrics", "127.0.0.1:9000"),
        ("localhost:1", "localhost", 1, "/metrics", "localhost:1"),
        ("[::1]:9000", "::1", 9000, "/metrics", "[::1]:9000"),
        ("http://127.0.0.1:9000", "127.0.0.1", 9000, "/metrics", "127.0.0.1:9000"),
        ("http://127.0.0.1:9000/", "127.0.0.1", 9000, "/metrics", "127.0.0.1:9000"),
        ("http://127.0.0.1:9000/metrics", "127.0.0.1", 9000, "/metrics", "127.0.0.1:9000"),
        ("HTTP://site.example/a?b=c", "site.example", 80, "/a?b=c", "site.example:80"),
        (":9000", "127.0.0.1", 9000, "/metrics", "127.0.0.1:9000"),
        ("http://[::1]/a", "::1", 80, "/a", "[::1]:80"),
        ("http://[::1]:9000/a", "::1", 9000, "/a", "[::1]:9000"),
    ],
)
def test_an_address_is_a_host_and_a_port_or_a_url(
    text: str, host: str, port: int, target: str, authority: str
) -> None:
    address = parse_address(text)
    assert address == Address(text, target, host, port)
    assert address.authority == authority


def test_an_address_may_be_a_unix_socket() -> None:
    address = parse_address("unix:/run/metrics")
    assert address == Address("unix:/run/metrics", "/metrics", path="/run/metrics")
    assert address.authority == "localhost"


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "9000",
            ":",
            "http://:9000/",
            "127.0.0.1",
            "127.0.0.1:",
            "127.0.0.1:0",
            "127.0.0.1:65536",
        ),
        *("127.0.0.1:9000/metrics", "unix:", "fd://3", "https://127.0.0.1:9000/metrics"),
        *("http://", "http:///metrics", "http://a:b", "http://a:0", "http://a/ b", "http://a/#b"),
        *("http://a/\r\nb", "http://a/é", "hÃ©:1", "a\tb:1", "http://a\r\nHost: b:1/"),
    ],
)
def test_other_texts_are_refused_with_the_forms(text: str) -> None:
    with pytest.raises(ValueError, match=r"HOST:PORT, http://HOST:PORT/metrics or unix:PATH"):
        parse_address(text)
