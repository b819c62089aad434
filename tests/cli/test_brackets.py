"""Square brackets are text everywhere: in what is found, in progress, in tables and in errors."""

from __future__ import annotations

import io
import re
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from motif.cli import doctor
from motif.cli.app import COMMANDS, app
from motif.compare import words
from motif.compare.progress import StudyProgress
from motif.compare.run import plan_table
from motif.display import Display, PlainConsole
from support import ROOT

SAID = "[red]x[/red] [serve] [/] :boom:"


@pytest.fixture
def screen():
    """A terminal, and what it shows."""
    file = io.StringIO()
    console = PlainConsole(file=file, force_terminal=True, width=300)
    return console, lambda: re.sub(r"\x1b\[[\d;?]*\w", "", file.getvalue())


def test_there_is_one_console_and_no_markup():
    sources = {path: path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py")}
    other = re.compile(r"\bConsole\(|from_markup|rich\.markup|rich import print|rich\.prompt|markup=True")
    assert not [path.name for path, text in sources.items() if other.search(text)]
    columns = [match[0] for text in sources.values() for match in re.finditer(r"TextColumn\([^)]*\)", text)]
    assert columns and all("markup=False" in column for column in columns)


def test_doctor_prints_the_extras(screen, monkeypatch):
    console, shown = screen
    monkeypatch.setattr(doctor, "REQUIRED", ())
    monkeypatch.setattr(doctor, "_checks", lambda: [(False, f"device {SAID}", SAID), (None, "sandbox", SAID)])
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None)
    assert not doctor.examine(console)
    for _, how in doctor.OPTIONAL.values():
        assert how in shown()
    assert shown().count(SAID) == 3 and "'motif-rl[four-bit]'" in shown()


def test_a_run_prints_what_it_says(screen):
    console, shown = screen
    display = Display(console)
    display.message(SAID)
    display.plan([(f"1 {SAID}", f"2 {SAID}")])
    with display, display._counting(f"3 {SAID}", 5) as advance:
        advance()
    for part in (SAID, f"1 {SAID}", f"2 {SAID}", f"3 {SAID}"):
        assert part in shown()


def test_a_study_prints_the_names_of_its_arms(screen, tmp_path):
    console, shown = screen
    run = SimpleNamespace(arm=SAID, folder=tmp_path, is_finished=False)
    recipe = SimpleNamespace(
        rollout=SimpleNamespace(questions_per_step=1, generations=1), train=SimpleNamespace(steps=3)
    )
    plan = SimpleNamespace(workload=SimpleNamespace(recipe=recipe), run_seconds=1.0)
    console.print(plan_table(SimpleNamespace(plans={SAID: plan}), [run], 1))
    tally = SimpleNamespace(finished=[], failed={SAID: f"because {SAID}"}, total=1)
    runner = SimpleNamespace(active=[], waiting=[], elsewhere=0, tally=tally, workers=1)
    with StudyProgress({}, console) as progress:
        progress.line = lambda runner: f"live {SAID}"
        progress(runner, None)
    assert f" {SAID}" in shown() and f"live {SAID}" in shown()


def test_a_study_prints_its_findings(screen, monkeypatch):
    console, shown = screen
    for name in ("accuracy_columns", "cost_columns"):
        monkeypatch.setattr(words, name, lambda summary, name=name: ([f"{name} {SAID}"], [[f"{name} cell {SAID}"]]))
    monkeypatch.setattr(words, "remarks", lambda summary: [SAID])
    words.print_summary({"contrasts": [{"sentence": f"contrast {SAID}"}], "thresholds": []}, console)
    for part in ("accuracy_columns ", "cost_columns ", "cost_columns cell ", "contrast ", "note: "):
        assert part + SAID in shown()


ARGUMENTS = {
    "train": ["{}.toml"], "eval": ["{}"], "probe": ["{}"], "solve": ["q", "--run", "{}"], "serve": ["{}"],
    "grade": ["{}.jsonl"], "compare": ["{}.toml"], "view": ["{}"], "report": ["{}"], "export": ["{}", "--out", "out"],
    "vllm-command": ["{}.toml"], "traces": ["{}.toml", "--out", "out"], "init": ["{}.csv"], "resume": ["{}"],
    "runs": ["{}"], "show": ["{}"],
}  # fmt: skip


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"doctor", "recipes"}))
def test_errors_of_every_command_name_what_was_given(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = "[red]x[serve] [bold]y"
    done = CliRunner().invoke(app, [command, *(text.format(said) for text in ARGUMENTS[command])])
    assert done.exit_code == 2, done.output
    assert said in done.output
