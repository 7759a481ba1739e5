"""The addresses of this machine."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from picowsgi.system.addresses import own_addresses


@pytest.mark.parametrize(
    ("family", "loopback"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_the_loopback_address_is_first_and_each_address_can_be_used(
    family: socket.AddressFamily, loopback: str
) -> None:
    found = own_addresses(family)
    assert found[0] == loopback
    assert len(set(found)) == len(found)
    for address in found:
        assert not ip_address(address).is_link_local
        with socket.socket(family) as sock:
            try:
                sock.bind((address, 0))
            except OSError:
                assert address == "::1", "expected an address of this machine"
