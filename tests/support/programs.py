"""Grading programs in tests, and what they leave behind."""

from __future__ import annotations

import json
from pathlib import Path

import psutil

from motif.grading.code import rule
from support.waiting import until

CODE = rule.Code()

SUCCESSOR = "def f(x):\n    return x + 1\n"


def gold(*tests, **more):
    return json.dumps({"tests": list(tests) or ["assert f(2) == 3", "assert f(-1) == 0"], **more})


def judged(program, *tests):
    """The grade by tests, and a stop if the sandbox is to blame."""
    grade = CODE.grade(gold(*tests), program)
    assert grade.verdict != "ungraded", grade.reason
    assert len(grade.reason) <= 200
    return grade


def reported(program, call="f()"):
    """What a call gave, as far as a reason shows it."""
    grade = judged(program, {"call": call, "expected": "'never this'"})
    assert grade.verdict == "wrong"
    return grade.reason.removeprefix(f"{call}: ").removeprefix("returned ")


def processes_with(marker):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if marker.encode() in line:
            found.append(int(folder.name))
    return found


def processes_within(pid):
    """The processes in sandboxes that a process has started: what is sent there begins with these words."""
    ours = {child.pid for child in psutil.Process(pid).children(recursive=True)}
    return ours & {*processes_with("What runs inside the sandbox")}


def zombies():
    """Ended processes of sandboxes, as far as names tell, that nobody has collected."""
    texts = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            texts.append(file.read_text(errors="replace"))
        except OSError:
            continue
    return [text for text in texts if "(bwrap) Z" in text or ("(python" in text and ") Z 1 " in text)]


def wait_for_the_end_of(marker):
    """Wait until no process has these words on its command line; fails if one stays."""
    until(lambda: not processes_with(marker))
