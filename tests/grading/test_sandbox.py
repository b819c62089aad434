"""A sandbox that is missing, does not hold or does not start: nothing is graded, and the reason is said."""

import os
from pathlib import Path

import pytest

from motif.errors import DataError
from motif.grading.code import sandbox
from motif.grading.verdict import Grade
from support.programs import CODE, SUCCESSOR, gold


def test_no_sandbox_says_what_to_install(fake_bubblewrap, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="bubblewrap is missing: install bubblewrap"):
        CODE.prepare()
    assert CODE.grade(gold(), SUCCESSOR).verdict == "ungraded"


def test_a_sandbox_that_does_not_start_says_why(fake_bubblewrap):
    fake_bubblewrap("import sys; sys.exit('bwrap: No permissions to create new namespace')")
    with pytest.raises(DataError, match=r"No permissions to create new namespace\. bubblewrap needs user namespaces"):
        CODE.prepare()


def test_a_sandbox_that_does_not_hold_is_refused(fake_bubblewrap):
    fake_bubblewrap("""import os, sys
os.write(int(sys.argv[sys.argv.index("--info-fd") + 1]), b'{"child-pid": %d}' % os.getpid())
program = sys.argv.index("-s") - 1
os.execv(sys.argv[program], sys.argv[program:])
""")
    with pytest.raises(
        DataError, match=r"the sandbox does not hold: inside it a program can .*open a socket.*see /etc"
    ):
        CODE.prepare()


def test_a_start_that_fails_later_is_ungraded(boxed, monkeypatch):
    def fail(*_, **__):
        raise OSError("no more processes")

    monkeypatch.setattr(sandbox.subprocess, "Popen", fail)
    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()
    grade = CODE.grade(gold(), SUCCESSOR)
    assert grade == Grade("ungraded", "the sandbox did not start: no more processes")
    assert not before or set(os.listdir("/proc/self/fd")) == before


def test_a_start_that_hangs_is_ungraded(fake_bubblewrap, monkeypatch):
    fake_bubblewrap("import time; time.sleep(60)")
    monkeypatch.setattr(sandbox, "START_SECONDS", 0.5)
    monkeypatch.setattr(sandbox, "prepare", lambda: None)
    assert CODE.grade(gold(), SUCCESSOR) == Grade("ungraded", "the sandbox did not start: timed out after 0.5 s")
