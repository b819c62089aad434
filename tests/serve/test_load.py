"""The load campaign, for a few seconds and with few clients; the long one is `tests/campaigns/load.py`."""

from __future__ import annotations

from pathlib import Path

import clients
import load
import pytest


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="memory and sockets are read from /proc")
def test_a_server_under_mixed_traffic_loses_miscounts_and_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(clients, "LONGEST_REST", 0.04)
    found = load.run(clients=12, seconds=2.5, out=tmp_path)
    assert found["first_problems"] == []
    assert found["checks"]["usage is the sum of rounds"] >= 8
    assert found["checks"]["equal to the unloaded answer"] >= 1
    assert found["outcomes"]["leaves: left by the client"] >= 1
    assert not any(found["left"].values())
