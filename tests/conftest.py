"""Fixtures of all tests: no network, one thread, a tiny model with its tokenizer, a browser."""

from __future__ import annotations

import gc
import os
from collections import Counter
from typing import Any

import hypothesis
import pytest
import torch

from motif.grading import worker
from support import forked, offline
from support.tiny import char_tokenizer, write_tiny_model

offline.guard()
os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
# An example may take as long as it does: on a busy machine that says nothing of the code.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")


def pytest_configure(config: pytest.Config) -> None:
    """One server of forked commands for all workers, started while they collect."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput") and hasattr(os, "pidfd_open"):
        forked.start()


TRAINING = ("training", "evaluation", "planning", "sampling", "compare")
"""Folders whose tests train or sample, and so take longer than others that are not marked as slow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first, so that no worker is left alone with one in the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (-slow[item.path], item.path.parent.name not in TRAINING))


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look at its million objects again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _no_network():
    """A test that reaches for another machine fails, also where the code under test makes light of the refusal."""
    before = len(offline.attempts)
    yield
    assert not offline.attempts[before:]


@pytest.fixture
def busy_machine(monkeypatch):
    """Graders that take an answer for too costly also where a busy machine let them compute little of their time."""
    monkeypatch.setattr(worker, "COMPUTING", 0.1)


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory):
    """What is remembered of trusted graders is the tests' own, and gone with them."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    return char_tokenizer()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a random two-layer Llama (grouped-query attention) and a character-level tokenizer."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


# -- a browser ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium. While it is open an event loop runs in this thread, so that no other can."""
    from playwright.sync_api import sync_playwright

    from support.browser import CHROME, Browser

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROME, args=["--no-sandbox"])
        yield Browser(chromium)
        chromium.close()
