"""A package with kernels is not installed: one sentence on a GPU, nothing on a CPU, and none of transformers' own."""

import logging

import pytest
import torch
from transformers.integrations.hub_kernels import use_kernel_func_from_hub_with_fallback

from motif.models import kernels


@pytest.fixture
def fresh(monkeypatch):
    """As in a process that has loaded no model yet."""
    for cached in (kernels.notices, kernels._tell):
        cached.cache_clear()
    handlers = logging.getLogger("transformers").handlers
    before = [list(handler.filters) for handler in handlers]
    for handler in handlers:
        handler.filters.clear()
    monkeypatch.delenv("RANK", raising=False)
    yield
    for handler, filters in zip(handlers, before, strict=True):
        handler.filters[:] = filters
    for cached in (kernels.notices, kernels._tell):
        cached.cache_clear()


def emitted(monkeypatch) -> list[str]:
    """What transformers shows from now on."""
    shown: list[str] = []
    for handler in logging.getLogger("transformers").handlers:
        monkeypatch.setattr(handler, "emit", lambda record: shown.append(record.getMessage()))
    return shown


def test_transformers_warnings_become_one_sentence(fresh, monkeypatch, capsys):
    kernels.notices()
    shown = emitted(monkeypatch)
    for name in ("scan_fn", "update_fn"):
        use_kernel_func_from_hub_with_fallback(name, "no_such_kernels")(lambda x: x)(1)
    logging.getLogger("transformers").warning("`use_mamba_kernels=False` is deprecated and has no effect.")
    assert not shown and kernels.notices().packages == {"no-such-kernels"}
    kernels.tell_missing(torch.device("cpu"))
    assert not capsys.readouterr().err
    for _ in range(2):
        kernels.tell_missing(torch.device("cuda", 0))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.endswith("pip install --no-build-isolation no-such-kernels\n")


def test_other_warnings_are_shown_and_other_processes_are_silent(fresh, monkeypatch, capsys):
    kernels.notices().packages.add("no-such-kernels")
    shown = emitted(monkeypatch)
    logging.getLogger("transformers").warning("something else")
    assert set(shown) == {"something else"}
    monkeypatch.setenv("RANK", "1")
    kernels.tell_missing(torch.device("cuda", 1))
    assert not capsys.readouterr().err
