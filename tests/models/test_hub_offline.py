"""Where the hub has no address, nobody waits for it."""

import socket

import pytest
from huggingface_hub import constants

from motif.hosts import without_waiting_for_the_hub


@pytest.mark.parametrize("proxies", [{}, {"https": "http://proxy:3128"}])
@pytest.mark.parametrize("known", [True, False])
def test_only_the_cache_is_searched_where_the_hub_has_no_address(monkeypatch, known, proxies):
    def look(*_):
        if not known:
            raise socket.gaierror("no such name")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket, "getaddrinfo", look)
    monkeypatch.setattr("urllib.request.getproxies", lambda: proxies)
    with without_waiting_for_the_hub():
        assert constants.is_offline_mode() == (not known and not proxies)
    assert not constants.is_offline_mode()
