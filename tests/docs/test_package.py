"""What the package says of itself, to PyPI, to those who cite it, and to those who want to add something to it."""

from __future__ import annotations

import re
import tomllib
from typing import get_args

import pytest

import motif
from motif.config.data import TaskName
from motif.grading import Grader
from motif.tasks import ProceduralTask
from support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def described() -> str:
    """The long description: the README with the substitutions of pyproject.toml."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    hook = PROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    for one in hook["substitutions"]:
        text = re.sub(one["pattern"], one["replacement"], text)
    return text


def test_every_address_leads_home():
    urls = PROJECT["project"]["urls"]
    assert urls["Homepage"] == motif.HOME
    assert all(url.startswith(motif.HOME) for name, url in urls.items() if name != "Paper")
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f'repository-code: "{motif.HOME}"' in citation
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE)[1] == motif.__version__


def test_the_long_description_has_no_link_that_needs_the_repository():
    text = described()
    targets = re.findall(r'\]\(([^)\s]+)|(?:href|src)="([^"]+)"', text)
    loose = [one for pair in targets for one in pair if one and not one.startswith(("https://", "#", "mailto:"))]
    assert targets and not loose
    kept = set(re.findall(rf"{re.escape(motif.HOME)}/(?:blob|raw)/main/([^)\"\s#]+)", text))
    assert kept and not [path for path in kept if not (ROOT / path).exists()]


def test_pythons_and_systems_are_those_that_were_run():
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    table = page.partition("## What was run")[2]
    claimed = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))
    ran = [line for line in table.splitlines() if line.startswith("| ") and "| nothing" not in line]
    assert claimed and all(any(version in line for line in ran) for version in claimed)
    assert not any("MacOS" in one or "Windows" in one for one in PROJECT["project"]["classifiers"])


def test_the_example_of_a_task_is_one(monkeypatch):
    """CONTRIBUTING.md's module as it stands there: two sides, none in both, gold answers that its grader takes."""
    code = re.search(r"```python\n(.+?)```", CONTRIBUTING, re.DOTALL)[1]
    names: dict = {"__name__": "reverse"}
    exec(compile(code, "CONTRIBUTING.md", "exec"), names)
    task = names["TASK"]
    assert isinstance(task, ProceduralTask)
    train, test = ({question.text for question in task.questions(None, split)} for split in ("train", "test"))
    assert len(train) == 7 and len(test) == 3 and not train & test
    with Grader(task.grader) as grader:
        golds = [question.gold for question in task.questions(None, "train")]
        assert all(grade.verdict == "right" for grade in grader.check(golds))


@pytest.mark.parametrize(
    ("file", "names"),
    [
        ("src/motif/config/data.py", ["TaskName", "TaskSection", "DataConfig"]),
        ("src/motif/grading/registry.py", ["RULES", "find"]),
        ("src/motif/grading/rule.py", ["thorough", "in_process", "check_gold"]),
        ("src/motif/method/credit.py", ["group_advantages", "RULES", "assign"]),
        ("src/motif/config/sections.py", ["CreditConfig", "baseline", "group", "reward"]),
        ("tests/support/architectures.py", ["ZOO"]),
        ("tests/models/test_architectures.py", ["SOME"]),
    ],
)
def test_what_a_contributor_is_sent_to_is_there(file, names):
    text = (ROOT / file).read_text(encoding="utf-8")
    for name in names:
        assert name in CONTRIBUTING
        assert re.search(rf"^(?: {{4}})?(?:def |class |){name}\b", text, re.MULTILINE), f"{file} has no {name}"
    assert "reverse" not in get_args(TaskName)


def test_types_are_shipped():
    assert (ROOT / "src" / "motif" / "py.typed").is_file()
