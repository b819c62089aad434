"""Every command's help, and what wrong calls are answered with: one sentence and exit status 2."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from motif.cli.app import COMMANDS, app
from motif.config import load_recipe

WRONG = {
    "init": {
        "nowhere.csv": "nowhere.csv: no such file",
        "./nowhere": "./nowhere: no such file",
        "FILE --out FILE": "FILE exists: choose another --out",
        "FILE --out nowhere/recipe.toml": "nowhere: no such folder",
        "FILE --method papper": "did you mean 'paper'?",
        "FILE": "FILE: its name does not say what it holds",
        "EMPTY": "EMPTY: the folder is empty",
        "ROWS.csv --subset main": "ROWS.csv is a file: --subset and --split go with the id of a data set",
        "RUN": "RUN is a run folder",
    },
    "show": {
        "demoo": "Did you mean 'demo'?",
        "demo --set train.stepz=1": "did you mean 'steps'?",
        "FILE --resolved": "FILE",
        "BINARY": "BINARY: not valid TOML: line 1: not UTF-8",
        "EMPTY": "EMPTY is a folder without a recipe.toml",
        "nowhere/recipe.toml": "no recipe 'nowhere/recipe.toml'",
        "demo --set train.steps": "section.key=value",
    },
    "train": {
        "demoo": "Did you mean 'demo'?",
        "ROWS.csv": "ROWS.csv is a file of data, not a recipe: motif init ROWS.csv",
        "demo --set train.stepz=1": "did you mean 'steps'?",
        "demo --set train.steps": "section.key=value",
        "demo --allow-changes": "--allow-changes goes with --resume",
        "demo --on 8xH100": "it goes with --dry-run",
        "demo --dry-run --lengths RUN": "--lengths goes with --on",
        "demo --dry-run --on 8xFOO": "unknown device 'FOO'",
        "demo --dry-run --on 8xH100 --lengths nowhere": "nowhere: no such folder",
        "demo --out FILE": "FILE is a file",
        "demo --out FILE/run": "FILE is a file",
    },
    "resume": {
        "nowhere": "nowhere: no such folder",
        "FILE": "FILE: is a file, not a folder",
        "RUN/recipe.toml": "give a run folder, e.g. RUN",
        "RUN --set train.stepz=1": "did you mean 'steps'?",
        "RUN --set train.steps": "section.key=value",
        "RUN --set train.steps=-1": "train.steps",
    },
    "runs": {
        "nowhere": "nowhere: no such folder",
        "FILE": "FILE: is a file, not a folder",
    },
    "traces": {
        "demoo --out x": "Did you mean 'demo'?",
        "demo --out x": "the recipe has no warm start",
        "gsm8k-smollm2 --set warmstart.source=solutions --out FILE": "exists: choose another --out",
        "demo --set warmstart.source=self --out FILE/x": "FILE is a file",
        "demo --set warmstart.source=solutions --out x": "needs worked solutions",
        "demo --set warmstart.sauce=self --out x": "did you mean 'source'?",
    },
    "vllm-command": {
        "nope": "no recipe 'nope'",
        "demoo": "Did you mean 'demo'?",
        "FILE": "FILE",
        "demo --set sampler.url=x": "did you mean 'urls'?",
        "demo --set sampler": "section.key=value",
    },
    "eval": {
        "nowhere": "nowhere: no such folder",
        "RUN": "RUN has not ended (it holds no summary.json): resume it with `motif resume RUN`",
        "RUN --best": "RUN holds no best weights",
        "RUN --json nowhere/numbers.json": "nowhere: no such folder",
        "RUN --json EMPTY": "EMPTY is a folder",
        "RUN --out FILE": "FILE is a file",
        "nowhere --best --recipe demo": "--base and --best do not apply",
        "embedded --recipe demoo": "Did you mean 'demo'?",
        "embedded --recipe demo --rounds 1,x": "--rounds takes whole numbers",
        "RUN --base --best": "choose one",
        "RUN --recipe demo": "brings its own recipe",
    },
    "probe": {
        "nowhere": "nowhere: no such folder",
        "FILE": "FILE: is a file, not a folder",
        "RUN": "has not ended",
        "RUN --questions 0": "at least 2 questions",
        "RUN --questions 1": "at least 2",
        "RUN --continuations 3": "probe.continuations",
    },
    "solve": {
        "q --run RUN --recipe demo": "give --run or --recipe",
        "q --file FILE": "give the question itself, or --file",
        "q --lines": "give the question itself",
        "- --file FILE": "choose one",
        "--file nowhere": "--file nowhere: No such file or directory",
        "q --run nowhere": "nowhere: no such folder",
        "q --run RUN": "RUN has not ended",
        "q --recipe demoo": "Did you mean 'demo'?",
    },
    "serve": {
        "nowhere": "nowhere: no such folder",
        "RUN": "RUN has not ended",
        "RUN --base --upstream x": "'x' is not the address of a server",
        "RUN --base --host no.such.host.invalid": "cannot listen on no.such.host.invalid",
        "embedded --recipe demoo": "Did you mean 'demo'?",
        "RUN --base --best": "choose one",
        "RUN --api-key=": "an API key is empty",
        "RUN --upstream http://localhost --upstream-body []": "--upstream-body takes a JSON object",
    },
    "grade": {
        "nowhere": "nowhere: no such file",
        "EMPTY": "EMPTY: is a folder",
        "FILE --out FILE": "--out FILE is the file that is read",
        "FILE --out EMPTY": "EMPTY is a folder",
        "FILE --out nowhere/x": "nowhere: no such folder",
        "FILE --grader maths": "did you mean 'math'?",
        "FILE --grader own.py": "no grader 'own.py'",
        "FILE --grader nowhere.py:grade": "nowhere.py cannot be imported",
        "FILE --grader nowhere:grade": "nowhere cannot be imported",
    },
    "compare": {
        "nope.toml": "nope.toml: no such file; give a study",
        "RUN": "RUN: a folder; give a study",
        "RUN/recipe.toml": "is a recipe, not a study",
        "FILE": "FILE",
        "ROWS.csv": "ROWS.csv is a file of data, not a study",
        "demo": "demo is a recipe, not a study",
        "STUDY --out FILE": "FILE is a file",
        "STUDY --seeds 1-": "--seeds takes numbers and ranges",
        "STUDY --seeds one": "--seeds takes numbers and ranges",
        "STUDY --from nowhere.jsonl": "nowhere.jsonl: No such file or directory",
    },
    "view": {
        "nowhere": "nowhere: no such folder",
        "FILE": "FILE: is a file",
        "EMPTY --save page.html": "no run in it",
        "RUN RUN": "the same run is given twice",
        "RUN --save nowhere/page.html": "nowhere: no such folder: choose another --save",
        "RUN --save EMPTY": "EMPTY is a folder",
        "RUN --host no.such.host.invalid --no-browser": "cannot listen on no.such.host.invalid",
    },
    "doctor": {
        "--json": "--recipe, --set and --json go with --model",
        "--model nowhere --recipe demoo": "Did you mean 'demo'?",
        "--model EMPTY --set model.adaptr=full": "did you mean 'adapter'?",
    },
    "report": {"nowhere": "nowhere: no such folder", "FILE": "is a file", "EMPTY": "is not a run folder"},
    "export": {
        "nowhere": "nowhere: no such folder",
        "EMPTY": "EMPTY is not a run folder",
        "RUN --out FILE": "FILE is a file",
        "RUN --private": "--private goes with --push",
        "RUN --to bin": "--to takes adapter, merged, gguf; got 'bin'",
        "RUN --to adapter": "there is no adapter: use --to merged",
        "RUN --to merged": "has not finished",
        "RUN --best --unfinished": "choose one",
        "RUN --unfinished": "checkpoint",
    },
}
HEAVY = {"grade"}
"""Commands of which a wrong call may need torch, or a worker process."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the calls are made: a run that has only begun, an empty folder, a file, and a study."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "EMPTY").mkdir()
    (folder / "RUN").mkdir()
    (folder / "RUN/recipe.toml").write_text(load_recipe("demo").to_toml())
    (folder / "ROWS.csv").write_text("question,answer\n1 + 1?,2\n")
    (folder / "FILE").write_text(json.dumps({"gold": "1", "prediction": "1"}) + "\n")
    (folder / "BINARY").write_bytes(bytes(range(128, 256)))
    (folder / "STUDY").write_text("recipe = 'demo'\n[arms.a]\n")
    return folder


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str) -> None:
    done = call(command, "--help")
    assert done.exit_code == 0 and done.stdout.startswith(f"Usage: motif {command}") and not done.stderr


@pytest.mark.parametrize(("command", "arguments"), [(name, text) for name, calls in WRONG.items() for text in calls])
def test_a_wrong_call_gets_one_sentence(
    command: str, arguments: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    before = sorted(folder.rglob("*"))
    done = call(command, *arguments.split())
    assert done.exit_code == 2, done.output
    assert WRONG[command][arguments] in done.stderr
    assert done.stderr.startswith("motif: ") and done.stderr.count("\n") == 1 and not done.stdout
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_options_and_commands_are_refused(command: str) -> None:
    done = call(command, "--nope")
    assert done.exit_code == 2 and "No such option: --nope" in done.stderr
    assert call(f"{command}s").exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "advice"),
    [
        (
            ["train", "demo", "--set", "train.steps=1", "train.seed=2", "name=a b"],
            "each change needs its own --set: --set train.seed=2 --set 'name=a b'",
        ),
        (["recipes", "demo"], "one argument too many (demo)"),
    ],
)
def test_what_is_left_over_is_told_with_a_remedy(arguments: list[str], advice: str) -> None:
    done = call(*arguments)
    assert done.exit_code == 2 and advice in " ".join(done.stderr.split()) and not done.stdout


@pytest.mark.parametrize("command", ["recipes", "doctor"])
def test_tables_in_a_pipe_have_no_blanks_at_the_ends_of_lines(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motif.cli.doctor._checks", list)
    lines = call(command).stdout.splitlines()
    assert len(lines) > 5 and lines == [line.rstrip() for line in lines]


def test_wrong_names_are_refused_before_torch_is_imported(folder: Path) -> None:
    calls = [[name, *text.split()] for name, texts in WRONG.items() if name not in HEAVY for text in texts]
    calls += [["grade", "nowhere"]]
    code = (
        "import sys; from typer.testing import CliRunner; from motif.cli.app import app\n"
        f"for call in {calls!r}:\n"
        "    assert CliRunner().invoke(app, call).exit_code == 2, call\n"
        "    assert 'torch' not in sys.modules, call\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("content", ["", "question,answer\n1,2\n", '{"prediction": "1"}\n'])
def test_a_file_that_cannot_be_graded_is_a_failure(content: str, tmp_path: Path) -> None:
    (tmp_path / "answers").write_text(content)
    done = call("grade", str(tmp_path / "answers"))
    assert done.exit_code == 1 and "nothing could be graded" in done.stderr, done.output
    (tmp_path / "answers").write_text(content + '{"gold": "1", "prediction": "2"}\n')
    assert call("grade", str(tmp_path / "answers")).exit_code == 0


def test_what_the_system_refuses_is_one_sentence(tmp_path: Path) -> None:
    done = call("grade", "-", "--out", str(tmp_path / ("x" * 300)))
    assert done.exit_code == 2 and "File name too long" in done.stderr and done.stderr.count("\n") == 1


def test_other_packages_draw_no_bars_in_a_pipe() -> None:
    code = "import os; from motif.cli import app; app.app = lambda: print(os.environ['TQDM_DISABLE']); app.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
