"""Worked examples in the prompts: read or drawn once, shown in the form of every number of rounds."""

import json
from contextlib import closing

import pytest

from motif.config import load_recipe
from motif.display import Display
from motif.errors import DataError, RecipeError
from motif.method.rounds import Rounds
from motif.method.solutions import spread
from motif.planning.workload import workload_of
from motif.session import open_session, with_examples
from motif.tasks import BadRows
from motif.training.loop import train

PARTS = [("1+2=3", "3, then +4"), ("3+4=7", "\\boxed{7}")]
LINE = {"question": "1+2+4", "answer": "7", "rounds": [{"reasoning": r, "note": n} for r, n in PARTS]}
ROUNDS = {"system_prompt": "S", "progress": " [{note}]", "counter": " {round}", "final": " !", "note_tokens": 12}
TAGS = {"think_tags": ["<think>", "</think>"], "note_tags": ["<note>", "</note>"]}


@pytest.fixture
def recipe(tmp_path, tiny_model):
    rows = [{"question": f"{a}+{a}", "answer": str(2 * a), "solution": f"{a}+{a}={2 * a}"} for a in range(1, 7)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(**changes):
        content = {
            "method": "paper",
            "model": {"name": tiny_model, "adapter": "full", "device": "cpu"},
            "data": {"train": str(tmp_path / "sums.jsonl"), "held_out": 2, "grader": "numeric"},
            "rounds": ROUNDS | TAGS,
            "rollout": {"branching": [2, 2], "tokens_first": 36, "tokens_continue": 36, "window": 500},
            "train": {"steps": 1, "threads": 1},
            "eval": {"questions": 1},
        }
        for section, settings in changes.items():
            content[section] = content.get(section, {}) | settings
        return load_recipe(content)

    return make


@pytest.fixture
def lines(tmp_path):
    def write(*rows):
        (tmp_path / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return {"examples": str(tmp_path / "examples.jsonl")}

    return write


def test_rounds_are_joined_or_repeated():
    marks = ("\\boxed{", "}")
    assert spread(PARTS, 2, marks) == PARTS
    assert spread(PARTS, 1, marks) == [("1+2=3\n3+4=7", "\\boxed{7}")]
    assert spread(PARTS[1:], 3, marks) == [("3+4=7", "7"), ("7", "7"), ("7", "\\boxed{7}")]


def test_every_prompt_shows_the_examples_in_its_number_of_rounds(recipe, lines, tiny_tokenizer):
    rounds = Rounds(with_examples(recipe(rounds=lines(LINE))).rounds, tiny_tokenizer)
    assert rounds.system(2) == (
        "S\n\nExample:\n1+2+4 1\n<think>\n1+2=3\n</think>\n<note>\n3, then +4\n</note>\n"
        "1+2+4 [3, then +4] !\n<think>\n3+4=7\n</think>\n<note>\n\\boxed{7}\n</note>"
    )
    assert rounds.system(1).count("1+2+4") == 1
    first, second = (rounds.messages("9+9", notes, 2) for notes in ([], ["18"]))
    assert first[0] == second[0] and second[1]["content"] == "9+9 [18] !"
    bare = Rounds(recipe().rounds, tiny_tokenizer)
    longer = rounds.longest_prompt("9+9", 2) - bare.longest_prompt("9+9", 2)
    assert longer == len(tiny_tokenizer(rounds.system(2))["input_ids"]) - 1


def test_a_run_keeps_the_examples_themselves(recipe, lines, tmp_path):
    settings = recipe(rounds=lines(LINE))
    train(settings, tmp_path / "run", display=Display(quiet=True))
    (tmp_path / "examples.jsonl").unlink()
    kept = load_recipe(tmp_path / "run/recipe.toml")
    assert kept.rounds.examples[0].rounds == PARTS
    assert train(kept, tmp_path / "run", resume=True, display=Display(quiet=True)).finished


def test_drawn_examples_are_training_questions_that_are_not_trained_on(recipe):
    settings = with_examples(recipe(rounds={"examples": 2}))
    assert settings == with_examples(recipe(rounds={"examples": 2}))
    shown = {example.question for example in settings.rounds.examples}
    with closing(open_session(settings)) as session:
        assert len(shown) == 2 and len(session.task.train) == 2
        assert not shown & {question.text for question in session.task.train + session.task.test}
    bare = workload_of(recipe()).prompt_tokens
    assert workload_of(recipe(rounds={"examples": 2})).prompt_tokens > bare + 50


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"answer": "8"}, DataError, r"example 1 ends with '7', and its answer is '8'"),
        (
            {"rounds": [{"reasoning": "x" * 99, "note": "\\boxed{7}"}]},
            BadRows,
            r"examples.jsonl:1: round 1 has .* tokens",
        ),
        ({"rounds": []}, BadRows, "'rounds' must be a list"),
    ],
)
def test_examples_that_cannot_be_shown_are_refused_by_line(recipe, lines, change, error, says):
    with pytest.raises(error, match=says):
        workload_of(recipe(rounds=lines(LINE | change)))


def test_a_test_question_is_not_shown(recipe, lines, tmp_path):
    held_out = next(iter(workload_of(recipe()).task.test)).text
    with pytest.raises(BadRows, match=r"the test question is one of rounds\.examples"):
        workload_of(recipe(rounds=lines(LINE | {"question": held_out})))


def test_more_examples_than_there_are_and_a_file_that_is_not_there(recipe):
    with pytest.raises(DataError, match=r"rounds.examples = 9, and 4 of 4 worked solutions can be cut"):
        with_examples(recipe(rounds={"examples": 9}))
    with pytest.raises(DataError, match="no such file"):
        with_examples(recipe(rounds={"examples": "nothing.jsonl"}))


def test_a_recipe_without_examples_does_not_name_them(recipe):
    assert "\nexamples" not in recipe().to_toml()


def test_what_examples_are_is_said_in_one_sentence(recipe):
    with pytest.raises(
        RecipeError, match=r"^rounds.examples: must be a number, a file, or a list of .* \(got \[1\]\)$"
    ):
        recipe(rounds={"examples": [1]})


def test_rounds_take_examples_that_have_been_read(recipe, tiny_tokenizer):
    with pytest.raises(RecipeError, match="they have not been read"):
        Rounds(recipe(rounds={"examples": 2}).rounds, tiny_tokenizer)
