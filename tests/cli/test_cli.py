"""The command line as a user meets it."""

import io
import json
import os
import subprocess
import sys
import venv

import pytest

from motif.config import shipped_recipes
from support import ROOT
from support.commands import motif


def test_help_names_every_command_and_recipe():
    text = motif("--help").stdout
    assert all(command in text for command in ("train", "eval", "probe", "solve", "serve", "report", "doctor"))
    text = "".join(motif("train", "--help").stdout.split())  # a name may be broken over two lines at its hyphen
    assert all(recipe in text for recipe in shipped_recipes())


def test_help_imports_nothing_heavy():
    code = "import sys, motif, motif.cli.app; sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "demoo"], "Did you mean 'demo'?"),
        (["train", "demo", "--set", "model.name=/nowhere"], "/nowhere"),
        (["train", "demo", "--set", "rollout.window=40", "--dry-run"], "window of 40"),
        (["train", "demo", "--set", "train.microbatch_tokens=100000000000", "--dry-run"], "train.microbatch_tokens"),
        (["train", "vanilla-grpo", "--set", "probe.questions=20"], "several rounds"),
        (["train", "demo", "--set", "probe.questions=5000", "--dry-run"], "only 1,384 held-out questions"),
    ],
)
def test_bad_input_gets_one_clear_sentence(arguments, message, tmp_path):
    done = motif(*arguments, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "runs").exists()


def test_dry_run_prints_the_plan_and_trains_nothing(tmp_path):
    text = motif("train", "demo", "--dry-run", cwd=tmp_path).stdout
    assert "8 questions × 8 responses × 4 trajectories" in text
    assert "576 generations" in text
    assert len(text.splitlines()) < 15 and max(map(len, text.splitlines())) > 120, "a pipe has no width"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_train_eval_solve_report(tmp_path):
    small = ["--set", "train.steps=2", "--set", "eval.questions=12", "--set", "rollout.questions_per_step=2"]
    text = motif("train", "demo", *small, cwd=tmp_path).stdout
    assert "step 2/2" in text
    assert "report:" in text
    run = tmp_path / "runs" / "demo"
    for name in ("recipe.toml", "metrics.jsonl", "trees.jsonl", "checkpoints", "model", "summary.json", "report.html"):
        assert (run / name).exists(), name
    summary = json.loads((run / "summary.json").read_text())
    for when in ("before", "after"):
        for rounds in ("rounds_1", "rounds_3"):
            assert {"accuracy", "low", "high", "n"} <= summary[when][rounds].keys()
    ledger = {"questions", "updates", "generated_tokens", "prefill_tokens", "trained_tokens", "flops", "seconds"}
    ledger |= {"distinct_questions", "prefill_saved", "sampling_seconds", "grading_seconds", "training_seconds"}
    assert ledger == summary["ledger"].keys()
    assert summary["ledger"]["questions"] == summary["ledger"]["distinct_questions"] == 4

    motif("eval", "runs/demo", "--json", "after.json", cwd=tmp_path)
    again = json.loads((tmp_path / "after.json").read_text())
    assert again["rounds_3"]["accuracy"] == summary["after"]["rounds_3"]["accuracy"]
    motif("eval", "runs/demo", "--base", "--json", "before.json", cwd=tmp_path)
    again = json.loads((tmp_path / "before.json").read_text())
    assert again["rounds_3"]["accuracy"] == summary["before"]["rounds_3"]["accuracy"]

    text = motif("probe", "runs/demo", "--questions", "2", "--continuations", "16", cwd=tmp_path).stdout
    assert "after step 2, probe: advantage and true value r =" in text
    found = json.loads((run / "probe.json").read_text())
    assert (found["step"], found["probe"]["questions"], found["probe"]["continuations"]) == (2, 2, 16)
    done = motif("probe", "runs/demo", "--questions", "1", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "at least 2" in done.stderr

    text = motif("solve", "What is 15 × 24?", cwd=tmp_path).stdout
    assert "round 1 of 3" in text
    assert "round 3 of 3" in text
    assert "answer:" in text
    (run / "report.html").unlink()
    motif("report", "runs/demo", cwd=tmp_path)
    assert (run / "report.html").stat().st_size > 10_000
    done = motif("train", "demo", *small, cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "motif resume" in done.stderr


def test_own_data(tmp_path, tiny_model):
    rows = [{"problem": f"What is {i} + {i}?", "solution": f"It is\n#### {2 * i}"} for i in range(1, 13)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = f"""
    model = {{ name = "{tiny_model}", adapter = "full" }}
    [data]
    train = "sums.jsonl"
    held_out = 3
    question_column = "problem"
    answer_column = "solution"
    answer_pattern = '#### (.+)'
    grader = "numeric"
    [rounds]
    system_prompt = ""
    note_tokens = 8
    [rollout]
    branching = [2, 2]
    tokens_first = 8
    tokens_continue = 8
    [train]
    steps = 1
    [eval]
    questions = 3
    """
    (tmp_path / "own.toml").write_text(recipe)
    text = motif("train", "own.toml", cwd=tmp_path).stdout
    assert "9 questions to train on, 3 held out" in text
    (tmp_path / "sums.jsonl").open("a").write('{"problem": "x"}\n')
    done = motif("train", "own.toml", "--out", "b", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "sums.jsonl:13" in done.stderr
    assert not (tmp_path / "b").exists()
    text = motif("train", "own.toml", "--out", "b", "--set", "data.skip_bad=true", cwd=tmp_path).stdout
    assert "1 row skipped" in text


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(tmp_path):
    """The built wheel carries the model, the recipes and the report's parts; its dependencies are taken from here."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True, capture_output=True
    )
    [wheel] = tmp_path.glob("motif_rl-*.whl")
    home = tmp_path / "env"
    venv.create(home)
    python = home / "bin" / "python"
    [packages] = home.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", wheel]
    subprocess.run(install, check=True)
    here = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(here) + "\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    where = subprocess.run(
        [python, "-c", "import motif; print(motif.__file__)"],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert str(home) in where.stdout
    done = subprocess.run(
        [home / "bin" / "motif", "train", "demo", "--set", "train.steps=1", "--set", "eval.questions=4"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "runs" / "demo" / "report.html").is_file()
    assert next(home.glob("lib/python*/site-packages/motif/docs/scaling.md")).is_file()


def test_doctor_shows_extras_and_where_the_pages_are(monkeypatch):
    from motif.cli import doctor
    from motif.display import PlainConsole

    monkeypatch.setattr(doctor, "REQUIRED", ("no-such-package",))  # and so nothing is tried out
    monkeypatch.setattr(doctor, "OPTIONAL", {"no_such_module": ("serving", "pip install 'motif-rl[serve]'")})
    with PlainConsole(width=40, record=True, file=io.StringIO(), force_terminal=True) as console:
        assert not doctor.examine(console)
    text = console.export_text()
    assert "pip install 'motif-rl[serve]'".replace(" ", "") in "".join(text.split()) and "…" not in text
    assert f"documentation: {ROOT / 'docs'}\n" in text  # in one piece, however narrow the terminal is
