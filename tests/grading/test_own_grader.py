"""A function of the user's own as the grader, and a file of answers graded from the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from motif.config import DataConfig, load_recipe
from motif.errors import RecipeError
from motif.grading import Grade, Grader
from motif.tasks import load
from support import ROOT
from support.commands import motif
from support.programs import processes_with, wait_for_the_end_of
from support.waiting import until

SOURCE = """
import os, time
def judge(gold, prediction):
    print("what a grader prints is nobody's verdict")
    if prediction == "crash": raise KeyError("lost")
    if prediction == "die": os._exit(3)
    if prediction == "compute":
        while True: pass
    if prediction == "wait": time.sleep(600)
    if prediction == "odd": return 0.5
    if prediction == "word": return "ungraded"
    return gold == prediction[::-1]
"""


@pytest.fixture
def mine(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(SOURCE)
    return f"{tmp_path / 'mine.py'}:judge"


def test_verdicts_and_failures(mine, busy_machine):
    with Grader(mine, time_limit=1.5) as grader:
        assert grader.grade("abc", "cba").verdict == "right"
        assert grader.grade("abc", "abc").verdict == "wrong"
        assert grader.grade("abc", "word").verdict == "ungraded"
        assert grader.grade("abc", "crash") == Grade(
            "ungraded", "KeyError: 'lost'", grader.grade("abc", "crash").seconds
        )
        assert grader.grade("abc", "odd").outcome == 0.5
        assert grader.grade("abc", "die").reason == "the grading worker died"
        assert grader.grade("abc", "compute").verdict == "wrong"  # else a policy could hide there
        assert grader.grade("abc", "wait").verdict == "ungraded"
        assert grader.grade("abc", "cba").verdict == "right"


FAMILY = """
import os, subprocess, sys, time
COMMAND = [sys.executable, "-c", "import time; time.sleep(600)  # MARK"]
def judge(gold, prediction):
    subprocess.Popen(COMMAND)
    subprocess.Popen(COMMAND, start_new_session=True)
    if os.fork() == 0:  # a daemon: its parent ends at once
        os.setsid()
        subprocess.Popen(COMMAND)
        os._exit(0)
    os.wait()
    if prediction == "die": os._exit(3)
    while prediction == "hang": time.sleep(1)
    return True
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("ending", ["hang", "close", "kill"])
def test_what_a_grader_has_started_ends_with_it(tmp_path, ending):
    marker = f"motif-family-{os.getpid()}-{ending}"
    (tmp_path / "mine.py").write_text(FAMILY.replace("MARK", marker))
    name = f"{tmp_path / 'mine.py'}:judge"
    if ending == "kill":
        script = f"from motif.grading import Grader; Grader({name!r}, time_limit=600).grade('1', 'hang')"
        process = subprocess.Popen([sys.executable, "-c", script])
    else:
        grader = Grader(name, time_limit=1 if ending == "hang" else 60)
        assert grader.grade("1", ending).verdict == ("ungraded" if ending == "hang" else "right")
    until(lambda: len(processes_with(marker)) == (0 if ending == "hang" else 3))
    if ending == "kill":
        process.kill()
        process.wait()
    else:
        grader.close()
    wait_for_the_end_of(marker)


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_the_group_of_a_worker_that_died_ends(tmp_path):
    marker = f"motif-family-{os.getpid()}-die"
    source = FAMILY.replace("MARK", marker).replace("subprocess.Popen(COMMAND, start_new_session=True)", "")
    (tmp_path / "mine.py").write_text(source.replace("os.fork() == 0", "False").replace("os.wait()", ""))
    with Grader(f"{tmp_path / 'mine.py'}:judge") as grader:
        assert grader.grade("1", "die").reason == "the grading worker died"
        wait_for_the_end_of(marker)


def test_what_cannot_be_loaded_is_said_before_any_work(tmp_path, mine):
    (tmp_path / "broken.py").write_text("import no_such_module")
    for name, said in (
        (f"{tmp_path / 'broken.py'}:judge", "No module named 'no_such_module'"),
        (mine.replace(":judge", ":juge"), "has no function 'juge'"),
        ("no_such_module_at_all:judge", "cannot be imported"),
    ):
        data = tmp_path / "data.jsonl"
        data.write_text('{"question": "q", "answer": "aba"}\n')
        with pytest.raises(RecipeError, match=said):
            load(DataConfig(train=str(data), grader=name))
    with pytest.raises(RecipeError, match="did you mean 'math'"):
        load(DataConfig(train=str(data), grader="maths"))


def test_a_module_beside_the_recipe_is_found(tmp_path, mine):
    (tmp_path / "recipe.toml").write_text('[data]\ngrader = "mine:judge"\n')
    assert load_recipe(tmp_path / "recipe.toml").data.grader == mine
    (tmp_path / "other.toml").write_text('[data]\ngrader = "mine.py:judge"\n')
    assert load_recipe(tmp_path / "other.toml").data.grader == mine


def test_gold_answers_that_anything_passes_for_are_reported(tmp_path):
    (tmp_path / "kind.py").write_text("def judge(gold, prediction):\n    return True\n")
    data = tmp_path / "data.jsonl"
    data.write_text('{"question": "q", "answer": "a"}\n{"question": "p", "answer": ""}\n')
    with pytest.raises(ValueError, match=r"data.jsonl:1: .*the answer '' passes for it"):
        load(DataConfig(train=str(data), grader=f"{tmp_path / 'kind.py'}:judge"))


def test_a_file_of_answers(tmp_path, mine):
    lines = [
        '{"gold": "1/2", "prediction": "so it is $\\\\boxed{\\\\frac12}$.", "id": 7}',
        "not json",
        '{"gold": "5"}',
        "[1]",
        "",
        '{"prediction": "5"}',
        '{"gold": 3, "prediction": 3}',
        '{"gold": "x", "prediction": "\\ud800"}',
        '{"gold": "42", "prediction": "\\\\boxed{41} or \\\\boxed{42}"}',
    ]
    (tmp_path / "answers.jsonl").write_text("\n".join(lines) + "\n")
    done = motif("grade", str(tmp_path / "answers.jsonl"), cwd=tmp_path)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    verdicts = ["right", "ungraded", "wrong", "ungraded", "ungraded", "right", "wrong", "wrong"]
    assert [record["verdict"] for record in records] == verdicts
    assert records[0]["id"] == 7 and records[1]["line"] == 2
    assert all({"verdict", "reason", "seconds"} <= record.keys() for record in records)
    assert "2 right, 3 wrong, 3 ungraded" in done.stderr

    (tmp_path / "numbers.jsonl").write_text('{"gold": "5", "prediction": "so 5 eggs are left"}\n')
    last = motif("grade", "numbers.jsonl", "--grader", "numeric", "--fallback", "last_number", cwd=tmp_path)
    assert json.loads(last.stdout)["verdict"] == "right"
    own = motif("grade", "numbers.jsonl", "--grader", mine, "--out", "graded.jsonl", cwd=tmp_path)
    assert not own.stdout and json.loads((tmp_path / "graded.jsonl").read_text())["verdict"] == "wrong"
    assert "no such file" in motif("grade", "nothing.jsonl", cwd=tmp_path, check=False).stderr


def test_the_example_of_the_documentation(tmp_path):
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    (tmp_path / "factors.py").write_text(block(text, "python"))
    (tmp_path / "factors.jsonl").write_text(block(text, "json"))
    (tmp_path / "factors.toml").write_text(block(text, "toml"))
    data = load_recipe(tmp_path / "factors.toml").data
    (question,) = load(data).train
    with Grader(data.grader) as grader:
        verdicts = [grader.grade(question.gold, answer).verdict for answer in ("13*7", "1*91", "7*14", "ninety")]
    assert verdicts == ["right", "wrong", "wrong", "ungraded"]


def block(text: str, language: str) -> str:
    return text.rpartition(f"```{language}\n")[2].partition("```")[0]
