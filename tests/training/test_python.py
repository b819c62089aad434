"""Training, evaluating and solving from Python, with data, models and rewards that are in memory only."""

from __future__ import annotations

import json
import tomllib

import pandas
import pytest
from datasets import Dataset, DatasetDict
from transformers import AutoModelForCausalLM

import motif
from motif.display import Display
from motif.errors import DataError, ModelError, RecipeError, RunFolderError
from motif.runs.result import Result
from motif.tasks.given import keep_rows
from motif.training.events import Evaluated, Saved, StepEnded, StopTraining, TrainingEnded, TrainingStarted
from support.scripted import recipe_of_sums, script

QUIET = Display(quiet=True)
ROWS = [{"prompt": f"{n}+1", "target": n + 1, "level": n % 3} for n in range(20)]


def say(question: str, path: tuple[int, ...]) -> str:
    """A note first; then the answer, with an error that depends on the response's place."""
    if len(path) == 1:
        return "<think>a</think><note>b</note>"
    return f"<think>a</think>\\boxed{{{int(question[:1]) + 1 + path[0] % 2}}}"


@pytest.fixture
def recipe(tmp_path, tiny_model):
    content = recipe_of_sums(tmp_path, tiny_model)
    content["data"] = {"task": "file", "train": "nothing.jsonl"}
    content["train"] |= {"steps": 2, "save_every": 1}
    return content


def close(answer, target, level):
    """Partial credit: less, the farther away, with parts."""
    return {"near": 1 / (1 + abs(int(answer) - target)), "easy": level == 0}


def test_partial_credit_is_exact_from_the_reward_to_the_report(recipe, tmp_path, monkeypatch):
    script(monkeypatch, say)
    events, run = [], tmp_path / "run"
    result = motif.train(
        recipe, run, train_dataset=ROWS, reward=close, reward_weights={"near": 3, "easy": 1}, callbacks=[events.append],
        settings={"eval": {"questions": 2}}, display=QUIET,
    )  # fmt: skip
    trees = [json.loads(line) for line in (run / "trees.jsonl").read_text().splitlines()]
    for tree in trees:
        row = next(row for row in ROWS if row["prompt"] == tree["question"]["text"])
        for response in tree["responses"]:
            worth = []
            for leaf in response["children"]:
                parts = close(leaf["answer"], row["target"], row["level"])
                assert leaf["parts"] == parts
                worth.append((3 * parts["near"] + parts["easy"]) / 4)
                assert leaf.get("score", 1.0) == worth[-1]
                assert leaf["verdict"] == ("right" if worth[-1] == 1 else "partial")
            assert response["value"] == pytest.approx(sum(worth) / len(worth), abs=1e-15)
    first = result.metrics[0]
    leaves = [leaf for tree in trees if tree["step"] == 1 for r in tree["responses"] for leaf in r["children"]]
    assert first["rewards/near/mean"] == pytest.approx(sum(leaf["parts"]["near"] for leaf in leaves) / len(leaves))
    assert first["outcome/partial"] == sum(leaf["verdict"] == "partial" for leaf in leaves) / len(leaves)
    assert 0 < result.before["rounds_2"]["accuracy"] < 1
    kinds = [type(event) for event in events]
    step = [StepEnded, Saved, StepEnded, Evaluated, Saved]
    assert kinds == [TrainingStarted, Evaluated, Saved, *step, TrainingEnded]
    assert events[-1].result is result
    page = (run / "report.html").read_text()
    assert "partial" in page


def test_what_is_given_is_kept_so_that_the_run_goes_on_anywhere(recipe, tmp_path, monkeypatch):
    script(monkeypatch, say)
    run = tmp_path / "run"
    given = {"train_dataset": pandas.DataFrame(ROWS), "reward": close, "display": QUIET}

    def stop(event):
        if isinstance(event, StepEnded):
            raise StopTraining

    stopped = motif.train(recipe, run, callbacks=[stop], **given)
    assert (stopped.steps, stopped.finished) == (1, False)
    with pytest.raises(RunFolderError, match="already holds a run"):
        motif.train(recipe, run, **given)
    with pytest.raises(RunFolderError, match="the reward close"):
        motif.train(recipe, run, resume=True, **given | {"reward": {"close": lambda answer: 0.5}})
    assert motif.train(recipe, run, resume=True, **given).steps == 2
    assert motif.train(run / "recipe.toml", resume=True, reward=close, display=QUIET).run == run
    resolved = tomllib.loads((run / "recipe.toml").read_text())
    assert resolved["data"]["grader"] == "python:close" and resolved["data"]["held_out"] == 2
    with pytest.raises(RecipeError, match="the reward 'lost' was given in Python: give it again"):
        motif.evaluate(run, settings={"data.grader": "python:lost"}, display=QUIET)
    again = motif.evaluate(run, reward=close, questions=2, display=QUIET)
    other = motif.evaluate(run, [{"question": "1+1", "answer": "2"}], reward=lambda answer: 0.25, display=QUIET)
    assert 0 < again["rounds_2"].accuracy < 1 and other["rounds_2"].accuracy == 0.25 and other["rounds_2"].n == 1
    assert next(motif.solve("3+1", run).leaves()).answer == "4"


def test_an_error_in_a_callback_is_raised_once_the_run_is_saved(recipe, tmp_path, monkeypatch):
    script(monkeypatch, say)

    def fails(event):
        if isinstance(event, StepEnded):
            raise KeyError("plot")

    with pytest.raises(KeyError, match="plot") as error:
        motif.train(recipe, tmp_path / "run", train_dataset=ROWS, reward=close, callbacks=[fails], display=QUIET)
    assert "is saved after step 1: resume it" in error.value.__notes__[0]
    done = motif.train(recipe, tmp_path / "run", train_dataset=ROWS, reward=close, resume=True, display=QUIET)
    assert done.finished


def test_a_model_of_ones_own_is_kept_in_the_run(recipe, tmp_path, tiny_model, tiny_tokenizer, monkeypatch):
    script(monkeypatch, say)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.model.embed_tokens.weight.data[5] += 1  # it is nobody else's
    before = model.model.embed_tokens.weight.clone()
    given = {"train_dataset": ROWS, "reward": close, "steps": 1, "display": QUIET}
    motif.train(recipe, tmp_path / "run", model=model, tokenizer=tiny_tokenizer, **given)
    [base] = (tmp_path / "run").glob("base-*")
    kept = AutoModelForCausalLM.from_pretrained(base)
    assert kept.model.embed_tokens.weight.equal(before) and model.model.embed_tokens.weight.equal(before)
    for wrong, words in (
        ({"model": tiny_model, "tokenizer": tiny_tokenizer}, "brings its own"),
        ({"model": 3}, "not a int"),
        ({"model": model, "tokenizer": "gpt2"}, "tokenizer: give one of transformers"),
    ):
        with pytest.raises((ModelError, RecipeError), match=words):
            motif.train(recipe, tmp_path / "other", **given, **wrong)


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (lambda answer: None, "returned None"),
        (lambda answer: 1.5, "returned 1.5"),
        (lambda answer, targets: 1.0, "asks for 'targets'.*prompt, target, level"),
    ],
)
def test_a_bad_reward_is_told_before_anything_is_spent(recipe, tmp_path, reward, words):
    with pytest.raises(RecipeError, match=words):
        motif.train(recipe, tmp_path / "run", train_dataset=ROWS, reward=reward, display=QUIET)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "1+1"}]}]


@pytest.mark.parametrize(
    ("rows", "reading", "first"),
    [
        (ROWS, {"question_column": "prompt", "answer_column": "target"}, ROWS[0]),
        (iter(ROWS), {"question_column": "prompt", "answer_column": "target"}, ROWS[0]),
        (Dataset.from_list(ROWS), {"question_column": "prompt", "answer_column": "target"}, ROWS[0]),
        ({"question": ["a"], "answer": [None]}, {"question_column": "question", "answer_column": "answer"},
         {"question": "a", "answer": None}),
        ([{"question": "a", "answer": "So.\n#### 3"}], {"question_column": "question", "answer_column": "answer",
         "answer_pattern": "#### (.+)"}, {"question": "a", "answer": "So.\n#### 3"}),
        ([{"prompt": CHAT}], {"question_column": "question"}, {"prompt": CHAT, "question": "Be brief.\n\n1+1"}),
        (pandas.DataFrame({"problem": ["a"], "when": [pandas.Timestamp("2026-01-02")], "x": [float("nan")]}),
         {"question_column": "problem"}, {"problem": "a", "when": "2026-01-02T00:00:00", "x": None}),
    ],
)  # fmt: skip
def test_rows_of_many_kinds_become_one_file(tmp_path, rows, reading, first):
    kept = keep_rows(rows, "train_dataset", tmp_path)
    assert kept.reading == reading
    assert json.loads(kept.path.read_text().splitlines()[0]) == first


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "has no rows"),
        ("rows.jsonl", "give a list of dicts"),
        (7, "give a list of dicts"),
        ([("a", "b")], "row 1 is a tuple, not a dict"),
        ([{"question": "a", "test": print}], "row 1: column 'test' holds a builtin_function_or_method"),
        (DatasetDict(train=Dataset.from_list(ROWS)), "several data sets.*choose one"),
        ({"question": "a"}, "one dict is one row"),
        ([{"prompt": [{"role": "assistant", "content": "a"}]}], "turns beside those of system and user"),
        ([{"prompt": [1]}], "neither a text nor a list of messages"),
    ],
)
def test_what_are_no_rows_is_told(tmp_path, rows, words):
    with pytest.raises(DataError, match=words):
        keep_rows(rows, "train_dataset", tmp_path)


def test_a_result_is_short_in_a_console_and_has_curves_in_a_notebook(tmp_path):
    from support.runs import fake_run

    run = fake_run(tmp_path / "run", steps=20)
    summary = json.loads((run / "summary.json").read_text())
    result = Result(run, 20, True, summary["before"], summary["after"], summary["ledger"], standstill="<b>")
    assert len(repr(result)) < 200 and "rounds_3 41.0 % → 72.0 %" in repr(result)
    page = result._repr_html_()
    assert page.count("<svg") >= 3 and "<polyline" in page and "&lt;b&gt;" in page
    frame = result.to_pandas()
    assert frame.index.name == "step" and frame.loc[0, "eval/rounds_3/accuracy"] == pytest.approx(0.41)
    assert list(frame["reward"].dropna()) == [line["reward"] for line in result.metrics]
    with (run / "metrics.jsonl").open("a") as file:
        print(json.dumps({"step": 0, "warmstart": {"eval": {"rounds_3": {"accuracy": 0.5}}}}), file=file)
    warmed = result.to_pandas()
    assert len(warmed) == len(frame) + 1 and list(warmed.index[:3]) == [0, 0, 1]
    assert list(warmed.loc[0, "eval/rounds_3/accuracy"]) == [pytest.approx(0.41), 0.5]
    assert warmed["stage"].dropna().tolist() == ["warmstart"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"settings": 5}, "settings: give a dict"),
        ({"settings": [5]}, "settings: give a dict"),
        ({"settings": {"train.steps": object()}}, "settings: numbers, texts and lists"),
        ({"callbacks": 5}, "a callback is a function of an event, not int"),
        ({"callbacks": [print, 5]}, "a callback is a function of an event, not int"),
    ],
)
def test_arguments_of_other_types_are_refused_before_anything_is_made(tmp_path, given, words):
    with pytest.raises(RecipeError, match=words):
        motif.train("demo", tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("places", "given", "words"),
    [
        ((ROWS,), {}, "recipe: must be a shipped name, .*data goes to train_dataset"),
        ((5,), {}, "recipe: must be a shipped name"),
        (("demo", ROWS), {}, "out: must be the name of a folder"),
        (("demo", close), {}, "out: must be the name of a folder .*and is of the type function"),
        (("demo", "grader.py"), {}, "out: grader.py is the name of a file"),
        (("demo",), {"resume": "runs/demo"}, "resume: must be True or False"),
        (("demo",), {"allow_changes": 1}, "allow_changes: must be True or False"),
        (("demo",), {"display": True}, "display: must be a Display"),
    ],
)
def test_arguments_in_each_others_places_are_refused_at_once(tmp_path, monkeypatch, places, given, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match=words):
        motif.train(*places, **given)
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_run_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="is a file: a run needs a folder"):
        motif.train("demo", tmp_path / "file", display=QUIET)


class Judge:
    """A reward that is an object."""

    def __call__(self, answer):
        return 0.5


def test_a_run_whose_reward_is_lost_says_how_to_go_on_before_any_work(recipe, tmp_path, monkeypatch, capsys):
    from motif.cli.app import main
    from motif.grading import given
    from motif.training import loop

    script(monkeypatch, say)
    run, one_step = tmp_path / "run", {"train.steps": 1, "eval.questions": 0}
    motif.train(recipe, run, train_dataset=ROWS, reward=Judge, settings=one_step, display=QUIET)
    monkeypatch.setattr(given, "_given", {})
    words = r"was trained with the reward 'Judge', which was given in Python.* motif\.train\(.*resume=True, reward=…\)"
    with monkeypatch.context() as patched:
        patched.setattr(loop, "make_plan", lambda *parts: pytest.fail("work was done"))
        with pytest.raises(RecipeError, match=words):
            motif.train(run, resume=True, settings={"train.steps": 2}, display=QUIET)
    monkeypatch.setattr("sys.argv", ["motif", "resume", str(run)])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = " ".join(capsys.readouterr().err.split())
    assert stopped.value.code == 2 and "which was given in Python" in said
    result = motif.train(run, resume=True, reward=Judge, steps=2, display=QUIET)
    assert result.run == run and result.steps == 2
