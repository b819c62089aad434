"""Evaluation: the rows and their token limits, chunks, and answers that are kept and gone on with."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from motif.cli.app import app
from motif.config import load_recipe
from motif.display import Display
from motif.errors import RecipeError, RunFolderError
from motif.evaluation.any_model import evaluate_model
from motif.evaluation.evaluate import evaluate
from motif.evaluation.rows import DecodingMode, EvalOverrides, EvalRow, answers_in, decoding_modes, eval_rows
from motif.evaluation.store import EvalFolder, fingerprint, settings_of, weights_digest
from motif.evaluation.target import find_target
from motif.grading import Grader
from motif.method.rounds import Rounds
from motif.models.hub import load_tokenizer
from motif.planning.plan import make_plan
from motif.runs.folder import RunFolder
from motif.sampling.base import Completion, Usage
from motif.session import open_session, open_task
from motif.training.loop import train
from support import ROOT, forked
from support.runs import offsets_at
from support.trees import make_tree

QUIET = Display(quiet=True)
SMALL = ["rollout.max_rows=4", "train.threads=1"]  # so chunks hold 8 answers
FILES = ("answers.jsonl", "results.json", "outcomes.jsonl")


def small(rounds=(1, 3), samples=None, questions=10, settings=(), **more) -> dict:
    overrides = EvalOverrides(rounds=list(rounds), samples=samples, questions=questions, **more)
    return {"recipe": "demo", "overrides": overrides, "settings": [*SMALL, *settings]}


def measured(out: Path, **more) -> dict:
    return evaluate_model(find_target("embedded", **small(**more)), QUIET, out)


@pytest.fixture(scope="module")
def demo():
    """The embedded model with its recipe, opened once."""
    session = open_session(load_recipe("demo", SMALL))
    yield session
    session.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An evaluation that was never interrupted: two rows, sampled and greedy, several chunks each."""
    out = tmp_path_factory.mktemp("whole") / "eval"
    return out, measured(out, samples=2)


# -- rows --------------------------------------------------------------------------------------------------------------


class Scripted:
    """A sampler that uses up every token it is given, and remembers what it was asked for."""

    def __init__(self, token: int):
        self.usage = Usage()
        self.token = token
        self.limits: list[int] = []

    async def sample(self, request, on_text=None):
        for index in range(len(request.keys)):
            self.limits.append(request.max_tokens)
            tokens = [self.token] * request.max_tokens
            yield Completion(request, index, tokens, [0.0] * len(tokens), truncated=True)


def test_the_matched_row_gets_the_tokens_of_all_rounds_in_one(tiny_tokenizer):
    settings = ["rollout.tokens_first=5", "rollout.tokens_continue=7", "eval.matched=true", "rollout.branching=[2,1,1]"]
    recipe = load_recipe("demo", settings)
    sampler = Scripted(tiny_tokenizer.convert_tokens_to_ids("7"))
    with Grader("numeric") as grader:
        task = make_tree([1]).question
        found = evaluate([task], sampler, Rounds(recipe.rounds, tiny_tokenizer), grader, recipe)
    assert list(found) == ["rounds_1", "rounds_3", "rounds_1_matched"]
    assert sampler.limits == [5, 5, 7, 7, 5 + 2 * 7]
    assert [accuracy.mean_tokens for accuracy in found.values()] == [5, 19, 19]
    assert found["rounds_1_matched"].truncated == 1.0
    assert found["rounds_1_matched"].well_formed == 0.0


def test_a_single_round_recipe_is_matched_to_the_most_rounds_it_is_tested_at():
    settings = ["rollout.branching=[8]", "eval.rounds=[1,3]", "eval.matched=true"]
    recipe = load_recipe("demo", settings)
    assert eval_rows(recipe)[-1] == EvalRow("rounds_1_matched", 1, 24 + 2 * 24, 24)
    assert load_recipe("demo", ["eval.rounds=[1,5]", "eval.matched=true"]).matched_tokens == 72


def test_what_is_drawn():
    assert decoding_modes(load_recipe("demo")) == [DecodingMode("greedy", 1, 0.0)]
    sampled = load_recipe("demo", ["eval.samples=4", "eval.temperature=0.7", "eval.greedy=true"])
    assert decoding_modes(sampled) == [DecodingMode("sampled", 4, 0.7), DecodingMode("greedy", 1, 0.0)]
    assert answers_in(sampled, 10) == 10 * 2 * 5
    with pytest.raises(RecipeError, match="set temperature too"):
        load_recipe("demo", ["eval.samples=4"])


def test_a_matched_budget_that_does_not_fit_is_refused_before_anything_is_spent():
    digit, tokenizer = "data.arithmetic.digits=1", load_tokenizer("embedded")
    task = open_task(load_recipe("demo", [digit]), tokenizer, 100)
    assert task.test
    for window, refused in ((100, True), (112, False)):
        recipe = load_recipe("demo", [digit, f"rollout.window={window}", "eval.matched=true"])
        if refused:
            with pytest.raises(RecipeError, match=r"eval.matched: one round of 72 .* lower rollout.tokens_first"):
                make_plan(recipe)
        else:
            assert len(open_task(recipe, tokenizer, window).test) == len(task.test)


# -- numbers -----------------------------------------------------------------------------------------------------------


def test_numbers_of_sampled_rows(whole):
    _, found = whole
    for accuracy in found.values():
        assert (accuracy.n, accuracy.samples, accuracy.temperature) == (10, 2, 1.0)
        assert accuracy.low <= accuracy.accuracy <= accuracy.high
        assert accuracy.pass_at[2].value >= accuracy.accuracy
        assert accuracy.greedy.n == accuracy.majority.n == 10
    assert found["rounds_3"].accuracy > found["rounds_1"].accuracy
    assert found["rounds_3"].mean_tokens > 2 * found["rounds_1"].mean_tokens


def test_the_greedy_answers_beside_the_samples_are_those_of_a_greedy_evaluation(whole, tmp_path):
    _, found = whole
    alone = measured(tmp_path / "greedy", samples=1)
    for name, accuracy in alone.items():
        assert accuracy.accuracy == found[name].greedy.value
        assert (accuracy.greedy, accuracy.majority, accuracy.pass_at) == (None, None, {})


def test_a_second_grader_needs_no_new_answers(whole, tmp_path, monkeypatch):
    shutil.copytree(whole[0], tmp_path / "again")
    monkeypatch.setattr("motif.evaluation.evaluate.grow", None)  # nothing is sampled
    again = measured(tmp_path / "again", samples=2, second_grader="exact")
    assert {accuracy.second.grader for accuracy in again.values()} == {"exact"}
    told = (tmp_path / "again" / "disagreements.jsonl").read_text().splitlines()
    assert len(told) == sum(len(accuracy.second.disagreements) for accuracy in again.values())
    shared = json.loads((tmp_path / "again" / "overlap.json").read_text())
    assert shared["questions"] == 10 and shared["same"] == []


def test_more_rounds_than_in_training(tmp_path):
    found = measured(tmp_path, rounds=(5,), questions=4)
    lines = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    depth, node = 1, lines[0]["responses"][0]
    while node.get("children"):
        depth, node = depth + 1, node["children"][0]
    assert (list(found), depth) == (["rounds_5"], 5)


# -- chunks ------------------------------------------------------------------------------------------------------------


def test_how_questions_are_chunked_changes_no_answer(demo):
    texts = []
    for max_rows in (2, 5, 256):
        recipe = load_recipe("demo", [f"rollout.max_rows={max_rows}", "eval.samples=2", "eval.temperature=1.0"])
        kept: dict[tuple[str, str], list[str]] = {}

        class Keeper:
            chunks = 0

            def get(self, row, drawing, questions):
                return None

            def put(self, row, drawing, trees, kept=kept):
                self.chunks += 1
                for tree in trees:
                    kept[row.name, tree.question.id] = [node.text for node in tree.walk()]

        keeper = Keeper()
        questions = demo.task.test[:8]
        numbers = evaluate(questions, demo.sampler, demo.rounds, demo.grader, recipe, store=keeper)
        assert keeper.chunks == 2 * -(-8 // max(1, 2 * max_rows // 2))
        texts.append((kept, {name: accuracy.to_dict() for name, accuracy in numbers.items()}))
    assert texts[0] == texts[1] == texts[2]


def test_every_answer_is_counted_once_whether_kept_or_new(demo, tmp_path):
    recipe = load_recipe("demo", [*SMALL, "eval.questions=10", "eval.matched=true"])
    questions, settings = demo.task.test[:10], {"any": "thing"}
    counted: list[int] = []
    for times in (1, 2):
        with EvalFolder(tmp_path / "eval", settings, "embedded") as folder:
            evaluate(questions, demo.sampler, demo.rounds, demo.grader, recipe, lambda: counted.append(1), folder)
        assert len(counted) == times * answers_in(recipe, 10) == times * 30


# -- kept and gone on with ---------------------------------------------------------------------------------------------


def assert_same(one: Path, two: Path) -> None:
    for name in FILES:
        assert (one / name).read_bytes() == (two / name).read_bytes(), name


@pytest.mark.parametrize("seed", range(3))
def test_cut_off_anywhere_and_started_again_ends_with_the_same_bytes(whole, tmp_path, seed):
    out, found = whole
    broken = tmp_path / "eval"
    shutil.copytree(out, broken)
    for name in ("results.json", "outcomes.jsonl"):
        (broken / name).unlink()
    content = (out / "answers.jsonl").read_bytes()
    (broken / "answers.jsonl").write_bytes(content[: random.Random(seed).randrange(1, len(content))])
    again = measured(broken, samples=2)
    assert again == found
    assert_same(out, broken)


def test_a_line_that_cannot_be_read_is_answered_again(whole, tmp_path):
    out, found = whole
    broken = tmp_path / "eval"
    shutil.copytree(out, broken)
    lines = (out / "answers.jsonl").read_bytes().splitlines(keepends=True)
    lines[3] = b'{"row": "rounds_1", \xff\n'
    (broken / "answers.jsonl").write_bytes(b"".join(lines))
    assert measured(broken, samples=2) == found
    assert sorted((broken / "answers.jsonl").read_bytes().splitlines()) == sorted(
        (out / "answers.jsonl").read_bytes().splitlines()
    )


def test_what_is_there_is_not_answered_again_and_more_rows_are_added(whole, tmp_path, monkeypatch):
    out, found = whole
    more = tmp_path / "eval"
    shutil.copytree(out, more)
    grown = []
    real = evaluate.__globals__["grow"]
    monkeypatch.setitem(evaluate.__globals__, "grow", lambda *a, **k: grown.append(a[3].rounds) or real(*a, **k))
    assert measured(more, samples=2) == found
    assert grown == []
    added = measured(more, rounds=(1, 2, 3), samples=2)
    assert set(grown) == {2}
    assert (added["rounds_1"], added["rounds_3"]) == (found["rounds_1"], found["rounds_3"])


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(whole, tmp_path, monkeypatch, capsys):
    out, found = whole
    broken = tmp_path / "eval"
    put, calls = EvalFolder.put, []

    def interrupted(self, *arguments):
        put(self, *arguments)
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(EvalFolder, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_model(find_target("embedded", **small(samples=2)), Display(), broken)
    assert "the same command resumes" in capsys.readouterr().out
    assert 0 < len((broken / "answers.jsonl").read_bytes()) < len((out / "answers.jsonl").read_bytes())
    assert measured(broken, samples=2) == found
    assert_same(out, broken)


@pytest.mark.slow
def test_killed_and_started_again_equals_uninterrupted(tmp_path):
    command = [forked.python(), "-m", "motif", "eval", "embedded", "--recipe", "demo", "--questions", "12"]
    command += ["--samples", "2", "--rounds", "1,3", "--set", "rollout.max_rows=4", "--set", "train.threads=1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run([*command, "--out", str(whole)], check=True, capture_output=True, env=environment)
    answers = broken / "answers.jsonl"
    kills = 0
    for share in (0.1, 0.6):
        process = subprocess.Popen([*command, "--out", str(broken)], stdout=subprocess.DEVNULL, env=environment)
        enough = share * (whole / "answers.jsonl").stat().st_size
        while process.poll() is None and (not answers.exists() or answers.stat().st_size < enough):
            time.sleep(0.01)
        kills += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kills >= 1
    subprocess.run([*command, "--out", str(broken)], check=True, capture_output=True, env=environment)
    assert_same(whole, broken)


# -- fingerprints ------------------------------------------------------------------------------------------------------


def test_whatever_decides_the_answers_is_in_the_fingerprint(demo):
    questions = demo.task.test[:5]
    own = fingerprint(settings_of(demo, questions))
    assert fingerprint(settings_of(demo, questions)) == own
    found = {own, fingerprint(settings_of(demo, questions[:4]))}
    changes = ["train.seed=1", "eval.samples=2", "eval.temperature=0.5", "rollout.tokens_first=20"]
    changes += ["rollout.tokens_continue=20", "rollout.max_rows=9", "rounds.note_tokens=8"]
    for change in changes:
        more = [change] + (["eval.temperature=1.0"] if "samples" in change else [])
        recipe = load_recipe("demo", [*SMALL, *more])
        found.add(fingerprint(settings_of(type(demo)(**(vars(demo) | {"recipe": recipe})), questions)))
    for field in ("id", "text", "gold"):
        other = type(questions[0])(**(vars(questions[0]) | {field: "7"}))
        found.add(fingerprint(settings_of(demo, [other, *questions[1:]])))
    assert len(found) == 2 + len(changes) + 3
    rounds = type(demo)(**(vars(demo) | {"recipe": load_recipe("demo", [*SMALL, "eval.rounds=[2]"])}))
    assert fingerprint(settings_of(rounds, questions)) == own  # another row of the same evaluation


def test_one_changed_weight_is_another_model(demo):
    own = weights_digest(demo.policy)
    weight = next(iter(demo.policy.trainable())).data
    kept = weight.flatten()[0].item()
    weight.view(-1)[0] = kept + 1e-3
    assert weights_digest(demo.policy) != own
    weight.view(-1)[0] = kept
    assert weights_digest(demo.policy) == own


def test_a_folder_is_one_evaluations_and_one_processs_at_a_time(tmp_path):
    settings, busy = {"seed": 1, "samples": 2}, pytest.raises(RunFolderError, match="another evaluation is writing")
    with EvalFolder(tmp_path / "a", settings, "m"), busy:
        EvalFolder(tmp_path / "a", settings, "m")
    with pytest.raises(RunFolderError, match="other seed: choose another --out"):
        EvalFolder(tmp_path / "a", {"seed": 2, "samples": 2}, "m")
    (tmp_path / "a" / "settings.json").write_text("[]")
    with pytest.raises(RunFolderError, match="does not belong to an evaluation"):
        EvalFolder(tmp_path / "a", {"seed": 1}, "m")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write the answers"):
        EvalFolder(tmp_path / "file", {}, "m")
    (tmp_path / "recipe.toml").write_text("")
    with pytest.raises(RunFolderError, match="is a run folder"):
        EvalFolder(tmp_path, {}, "m")


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_folder(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.toml").write_text(load_recipe("demo").to_toml())
    return str(run)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such folder"),
        (["/nowhere", "--recipe", "demo"], "/nowhere: no such folder, and model"),
        (["EMPTY", "--recipe", "demo"], "no config.json"),
        (["embedded"], "--task NAME, or --recipe"),
        (["embedded", "--recipe", "demo", "--best"], "--base and --best do not apply"),
        (["embedded", "--recipe", "demoo"], "Did you mean 'demo'?"),
        (["embedded", "--recipe", "demo", "--task", "gsm9k"], "got 'gsm9k'"),
        (["embedded", "--recipe", "demo", "--task", "file"], "needs data.train"),
        (["embedded", "--recipe", "demo", "--rounds", "1,x"], "--rounds takes whole numbers"),
        (["embedded", "--recipe", "demo", "--rounds", "0"], "eval.rounds"),
        (["embedded", "--recipe", "demo", "--rounds", ""], "--rounds takes whole numbers"),
        (["embedded", "--recipe", "demo", "--samples", "3", "--temperature", "0"], "set temperature too"),
        (["embedded", "--recipe", "demo", "--set", "eval.questions=0"], "no held-out questions"),
        (["embedded", "--recipe", "demo", "--matched", "--set", "rollout.window=100"], "eval.matched"),
        (["RUN", "--recipe", "demo"], "brings its own recipe"),
        (["RUN", "--base", "--best"], "choose one"),
        (["RUN"], "has not ended"),
    ],
)
def test_bad_input_gets_one_clear_sentence(arguments, message, run_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    arguments = [{"RUN": run_folder, "EMPTY": "empty"}.get(word, word) for word in arguments]
    done = CliRunner().invoke(app, ["eval", *arguments])
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert "Traceback" not in done.output
    assert not (tmp_path / "runs").exists()


def test_a_bare_model_on_files_of_ones_own(tmp_path, monkeypatch, tiny_model):
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"{i} + {i}", "answer": str(2 * i)} for i in range(1, 6)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    limits = ["rollout.tokens_first=8", "rollout.tokens_continue=8", "rounds.system_prompt=''", "rounds.note_tokens=8"]
    settings = [word for limit in ["data.test=sums.jsonl", *limits] for word in ("--set", limit)]
    arguments = ["eval", tiny_model, "--task", "file", "--rounds", "2", "--samples", "2", "--json", "numbers.json"]
    done = CliRunner().invoke(app, [*arguments, *settings])
    assert done.exit_code == 0, done.output
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert (list(numbers), numbers["rounds_2"]["n"], numbers["rounds_2"]["samples"]) == (["rounds_2"], 5, 2)
    [folder] = (tmp_path / "runs").glob("eval-tiny*/*")
    assert f"answers: {folder.relative_to(tmp_path)}" in done.output
    assert len((folder / "answers.jsonl").read_text().splitlines()) == 10  # sampled and greedy
    assert "pass@1 (mean of 2)" in done.output
    assert "majority of 2" in done.output


def test_another_task_takes_none_of_the_recipes_data():
    changes = ["data.arithmetic.operation=add"]
    found = find_target("embedded", recipe="circuit", task="arithmetic", settings=changes).recipe
    assert (found.data.task, found.data.arithmetic.operation, found.data.circuit.inputs) == ("arithmetic", "add", 4)
    assert found.rollout.tokens_first == 40  # limits and scaffold are the recipe's
    same = find_target("embedded", recipe="sums-smollm2", task="arithmetic").recipe
    assert same.data.arithmetic.largest == 20  # its own task, as it is there


def test_options_and_what_they_stand_for():
    def chosen(settings=(), **drawn):
        found = find_target("embedded", recipe="demo", overrides=EvalOverrides(**drawn), settings=settings).recipe.eval
        return found.samples, found.temperature, found.greedy

    assert chosen() == (1, 0.0, False)
    assert chosen(samples=1) == (1, 0.0, False)
    assert chosen(samples=4) == (4, 1.0, True)
    assert chosen(samples=4, temperature=0.5, greedy=False) == (4, 0.5, False)
    assert chosen(["eval.temperature=0.6"], samples=4) == (4, 0.6, True)
    assert chosen(["eval.samples=3", "eval.temperature=0.6"]) == (3, 0.6, False)
    assert chosen(temperature=0.7) == (1, 0.7, False)


@pytest.mark.slow
def test_the_example_of_the_documentation_is_what_its_command_prints(tmp_path, monkeypatch):
    """But for single tokens that another machine may sample otherwise."""
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    command = re.search(r"## An example\s+```sh\nmotif (.+)\n```", page)[1]
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, command.split())
    assert done.exit_code == 0, done.output

    def table(text: str) -> dict[str, list[float]]:
        lines = re.findall(r"^ *((?:pass@|majority|greedy|cut off|tokens an answer).*)$", text, re.MULTILINE)
        cells = (re.split(r" {2,}", line.strip()) for line in lines)
        return {name: [float(n) for cell in row for n in re.findall(r"[\d.]+", cell)] for name, *row in cells}

    shown, printed = table(page.partition("## What the numbers mean")[0]), table(done.output)
    assert shown.keys() == printed.keys() and len(shown) == 7
    for name, numbers in shown.items():
        assert printed[name] == pytest.approx(numbers, abs=3), name


# -- during training ---------------------------------------------------------------------------------------------------


def test_outcomes_are_truncated_with_the_other_files(tmp_path):
    run = RunFolder(tmp_path)
    for step in (0, 2, 4):
        run.append_outcomes([{"step": step, "row": "rounds_3", "questions": ["a", "b"], "outcomes": [1.0, None]}])
    file, offsets = tmp_path / "outcomes.jsonl", offsets_at(tmp_path, 2)
    file.write_text(file.read_text() + '{"step": 2, "row')
    run.truncate_to(offsets)
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [0, 2]


@pytest.mark.slow
def test_a_run_writes_outcomes_and_its_evaluation_repeats_them(tmp_path):
    small = ["train.steps=1", "eval.questions=12", "rollout.questions_per_step=1", "eval.matched=true"]
    result = train("demo", tmp_path / "run", settings=small, display=QUIET)
    names = ["rounds_1", "rounds_3", "rounds_1_matched"]
    assert list(result.after) == names
    lines = [json.loads(line) for line in (tmp_path / "run" / "outcomes.jsonl").read_text().splitlines()]
    assert [(line["step"], line["row"]) for line in lines] == [(step, name) for step in (0, 1) for name in names]
    for line in lines:
        numbers = (result.after if line["step"] else result.before)[line["row"]]
        assert len(line["questions"]) == len(set(line["questions"])) == 12
        assert sum(line["outcomes"]) / 12 == pytest.approx(numbers["accuracy"])

    seen: set[Path] = set()
    for options, numbers, step in (({}, result.after, 1), ({"base": True}, result.before, 0)):
        found = evaluate_model(find_target(str(tmp_path / "run"), **options), QUIET)
        assert {name: accuracy.to_dict() for name, accuracy in found.items()} == numbers
        [kept] = set((tmp_path / "run" / "eval").iterdir()) - seen
        seen.add(kept)
        assert json.loads((kept / "results.json").read_text()) == numbers
        outcomes = [json.loads(line) for line in (kept / "outcomes.jsonl").read_text().splitlines()]
        assert [{"step": step} | line for line in outcomes] == [line for line in lines if line["step"] == step]


def test_evaluations_during_training_may_have_fewer_questions(tmp_path):
    settings = ["train.steps=2", "eval.every=1", "eval.questions=6", "eval.questions_during=2", "eval.rounds=[3]"]
    small = ["rollout.questions_per_step=1", "rollout.branching=[2,1,1]", "train.save_every=2"]
    recipe = load_recipe("demo", [*settings, *small])
    plan, _ = make_plan(recipe)
    assert "6 questions at 3 rounds, 2 times, and 2 of them 1 time between" in dict(plan.rows())["evaluation"]
    assert plan.workload.evaluated == 2 + 2 / 6
    train(recipe, tmp_path / "run", display=QUIET)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    found = [line["eval"]["rounds_3"] for line in lines if "eval" in line]
    assert [result["n"] for result in found] == [6, 2, 6]
    assert [result.get("first", {}).get("n") for result in found] == [2, None, 2]
    rows = [json.loads(line) for line in (tmp_path / "run/outcomes.jsonl").read_text().splitlines()]
    first, between, last = (row["outcomes"] for row in rows)
    best = json.loads((tmp_path / "run/summary.json").read_text())["best"]
    assert best["accuracy"] == max(sum(between) / 2, sum(last[:2]) / 2) and len(first) == 6
