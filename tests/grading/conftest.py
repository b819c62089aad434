"""Sandboxes for the tests of graders."""

import os
import stat
import sys

import pytest

from motif.grading.code import sandbox, seccomp

HANGING = """
from motif.grading.math.rule import Math

shipped = Math.thorough

def thorough(self, gold, prediction):
    if prediction == "9^{9^{9}}":
        9 ** 9 ** 9
    return shipped(self, gold, prediction)

Math.thorough = thorough
"""


@pytest.fixture
def boxed(monkeypatch):
    """A working sandbox with a short limit of computing."""
    try:
        sandbox.prepare()
    except sandbox.SandboxError as error:
        assert "does not hold" not in str(error)  # that is no reason to skip
        pytest.skip(f"no sandbox: {error}")
    monkeypatch.setattr(sandbox, "CPU_SECONDS", 1)
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 60.0)  # on a busy machine it takes long to begin


@pytest.fixture
def hangs(tmp_path, monkeypatch):
    """An answer on which the maths rule of every worker hangs, inside one long operation; the shipped one does not."""
    folder = tmp_path / "hanging"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HANGING)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    return "9^{9^{9}}"


@pytest.fixture
def fake_bubblewrap(tmp_path, monkeypatch):
    """A `bwrap` of the test's own."""
    if not sys.platform.startswith("linux") or os.uname().machine not in seccomp.MACHINES:
        pytest.skip("bubblewrap is for Linux")

    def install(script):
        path = tmp_path / "bwrap"
        path.write_text(f"#!{sys.executable}\n{script}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path))

    caches = (sandbox.bubblewrap.command, sandbox.prepare)
    for cached in caches:
        cached.cache_clear()
    yield install
    for cached in caches:
        cached.cache_clear()
