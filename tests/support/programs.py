"""Grading programs in tests, and what they leave behind."""

from __future__ import annotations

import json
import time
from pathlib import Path

from motif.grading.code import rule

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


def zombies():
    """Ended processes of sandboxes, as far as names tell, that nobody has collected."""
    texts = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            texts.append(file.read_text(errors="replace"))
        except OSError:
            continue
    return [text for text in texts if "(bwrap) Z" in text or ("(python" in text and ") Z 1 " in text)]


def gone_soon(marker):
    end = time.monotonic() + 30
    while processes_with(marker) and time.monotonic() < end:
        time.sleep(0.05)
    return not processes_with(marker)
