"""LangChain, LiteLLM, AutoGen and the newest openai as clients of `motif serve`, as their users call them."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from motif.sampling.local.engine import Engine
from motif.session import open_session
from motif.tasks import Task
from support.serving import DEMO, serving

PYTHON = os.environ.get("MOTIF_CLIENTS", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="needs the clients (make test-hosts)")


def test_every_client_gets_answers():
    session = open_session(DEMO, task=Task("solve", [], [], "exact", []))
    live = Engine(session.policy, 16)
    with serving(live, session.rounds, window=256) as (url, _):
        script = Path(__file__).with_name("sdk_clients.py")
        done = subprocess.run([PYTHON, str(script), url], capture_output=True, text=True, check=False)
    live.close()
    session.close()
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert len(answers) == 17
    for way, answer in answers.items():
        for one in answer if isinstance(answer, list) else [answer]:
            assert "\\boxed{" in one, way
