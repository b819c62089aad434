"""A warm start: demonstrations are built exactly, imitated by the same update, and resumed bit by bit."""

import contextlib
import csv
import json
import math
import random
import shutil

import pytest
import torch

from motif.cli.traces import traces
from motif.cli.train import show_plan
from motif.config import LossConfig, Trust, load_recipe
from motif.config.trust import TRAINING, _wishes
from motif.display import Display
from motif.errors import DataError, RecipeError, RunFolderError
from motif.method.demonstrations import Demonstrator, UnfitDemonstration
from motif.method.rounds import Rounds
from motif.method.solutions import Cutting, found, pieces, without_marks
from motif.method.tree import Question
from motif.models.policy import Policy
from motif.runs import checkpoint
from motif.session import open_session
from motif.tasks import BadRows, load
from motif.training.batch import Minibatch, UpdateStats, collect
from motif.training.loop import train
from motif.training.sources import demonstrator, read_demonstrations
from motif.training.warmstart import read_ahead
from support.runs import metric_lines

ROUNDS = {"system_prompt": "", "question": "{question}", "progress": " [{note}]", "counter": " {round}", "final": " !"}
TAGS = {"think_tags": ["<think>", "</think>"], "note_tags": ["<note>", "</note>"], "note_tokens": 12}


def rows(path, count=12):
    random.seed(3)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "solution", "answer"])
        for number in range(count):
            a, b, c = number + 1, random.randint(1, 9), random.randint(1, 9)
            writer.writerow([f"{a}+{b}+{c}", f"{a}+{b}={a + b}\n{a + b}+{c}={a + b + c}", a + b + c])
    return path


def recipe(tmp_path, tiny_model, **changes):
    warmstart = {"source": "solutions", "steps": 4, "look_every": 2, "look_questions": 1, "demonstrations_per_step": 2}
    warmstart |= {"learning_rate": 3e-3}
    content = {
        "method": "paper",
        "model": {"name": tiny_model, "adapter": "full", "device": "cpu"},
        "data": {"train": str(rows(tmp_path / "sums.csv")), "held_out": 2, "grader": "numeric"},
        "rounds": ROUNDS | TAGS,
        "rollout": {"branching": [2, 2], "tokens_first": 34, "tokens_continue": 34, "window": 64},
        "warmstart": warmstart | changes.pop("warmstart", {}),
        "train": {"steps": 1, "save_every": 1, "threads": 1, "keep_checkpoints": 3},
        "eval": {"questions": 2},
    }
    for section, settings in changes.items():
        content[section] = content.get(section, {}) | settings
    return load_recipe(content)


@pytest.fixture(scope="module")
def build(tiny_model):
    settings = load_recipe({"rounds": ROUNDS | TAGS, "rollout": {"branching": [2, 2], "tokens_first": 40}})
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    return Demonstrator(Rounds(settings.rounds, tokenizer), settings.rollout, window=64)


def test_a_solution_becomes_a_tree_of_given_responses(build):
    tree = build.from_solution(Question("q", "1+2+3", "6"), "1+2=3\n3+3=6", Cutting())
    first, last = tree.walk()
    assert first.text == "<think>\n1+2=3\n</think>\n<note>\n1+2=3\n</note>"
    assert last.text == "<think>\n3+3=6\n</think>\n<note>\n\\boxed{6}\n</note>"
    assert (first.note, last.answer, first.advantage, last.advantage) == ("1+2=3", "6", 1.0, 1.0)
    assert last.prompt_ids == build.rounds.prompt("1+2+3", ["1+2=3"], 2)
    assert build.rounds.ends(first.token_ids) and build.rounds.spell(first.token_ids) == first.text


@pytest.mark.parametrize(
    ("solution", "gold", "problem"),
    [
        ("", "6", "the solution is empty"),
        ("1" * 50, "6", "round 1 has .* tokens, more than rollout.tokens_first = 40"),
        ("a </think> b", "6", "round 1 is not one <think> block"),
        ("1é", "6", "characters that the model's tokenizer cannot write"),
    ],
)
def test_what_cannot_be_cut_is_refused_with_the_reason(build, solution, gold, problem):
    with pytest.raises(UnfitDemonstration, match=problem):
        build.from_solution(Question("q", "1+2+3", gold), solution, Cutting())


def test_pieces_are_never_cut_inside_a_formula():
    assert pieces("Let $x\n= 1$. Then y.\n\nSo z.", "lines") == ["Let $x\n= 1$. Then y.", "So z."]
    assert pieces("Let x be 1. Then y.\nSo z.", "sentences") == ["Let x be 1.", "Then y.", "So z."]
    assert pieces("a\nb\n\nc", "steps") == ["a\nb", "c"]


@pytest.mark.parametrize(
    ("piece", "note"),
    [
        ("She sold 48/2 = <<48/2=24>>24 clips.", "48/2=24"),
        ("Hence $x = 3$ and $y$.", "x = 3"),
        ("Then 3 + 4 = 7 apples.", "3 + 4 = 7"),
        ("It is blue.", "It is blue."),
        ("So \\boxed{\\frac{1}{2}}.", "So \\frac{1}{2}."),
    ],
)
def test_what_a_piece_has_found(piece, note):
    assert found(piece, ("\\boxed{", "}")) == note


def test_marks_that_are_not_closed_are_removed_too():
    assert without_marks("a \\boxed{b", ("\\boxed{", "}")) == "a b"


def test_the_gradient_is_that_of_the_mean_log_probability(tmp_path, tiny_model, build):
    settings = recipe(tmp_path, tiny_model).model_copy(update={"loss": LossConfig(kind="dapo")})
    policy = Policy(settings.model, 0)
    trees = [build.from_solution(Question("q", "1+2+3", "6"), "1+2=3\n3+3=6", Cutting())]
    Minibatch(policy, collect(trees, settings)).gradient(settings, 4096, stats := UpdateStats())
    ours = [parameter.grad.clone() for parameter in policy.trainable()]
    policy.model.zero_grad()
    nodes = list(trees[0].walk())
    total = sum(len(node.token_ids) for node in nodes)
    surprise = 0.0
    for node in nodes:
        ids = torch.tensor([[*node.prompt_ids, *node.token_ids]])
        logprobs = policy.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        own = logprobs.gather(1, ids[0, 1:, None])[len(node.prompt_ids) - 1 :].sum()
        (-own / total).backward()
        surprise -= own.item()
    assert math.isclose(stats.surprise, surprise, rel_tol=1e-4)
    for mine, parameter in zip(ours, policy.trainable(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-3, atol=1e-6)


class Stops(Display):
    """Raises at the n-th message that begins with `warm start`, as a kill would end the run there."""

    def __init__(self, at):
        super().__init__(quiet=True)
        self.left = at

    def message(self, text):
        self.left -= text.startswith("warm start")
        if self.left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("source", ["solutions", "self"])
def test_a_run_that_is_killed_in_the_stage_ends_as_one_that_was_not(tmp_path, tiny_model, source, monkeypatch):
    if source == "self":  # a random model is never right
        monkeypatch.setattr("motif.training.own_samples._ends_right", lambda root: True)
        monkeypatch.setattr(
            "motif.training.own_samples._kept",
            lambda tree, build, cut, *_, **__: ([build.from_solution(tree.question, "1+2=3\n3+3=6", cut)], ""),
        )
    own = {"iterations": 2, "questions": 3, "samples": 2, "tokens": 8}
    changes = {"source": source} | (own if source == "self" else {})
    settings = recipe(tmp_path, tiny_model, warmstart=changes, rollout={"window": 400})
    train(settings, tmp_path / "whole", display=Display(quiet=True))
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "broken", display=Stops(5))
    assert checkpoint.all_checkpoints(tmp_path / "broken")[-1].name == "step-000000"
    train(settings, tmp_path / "broken", resume=True, display=Display(quiet=True))
    for name in ("model/model.safetensors", "trees.jsonl", "outcomes.jsonl"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "broken" / name).read_bytes(), name
    assert metric_lines(tmp_path / "whole") == metric_lines(tmp_path / "broken")
    summary = json.loads((tmp_path / "whole/summary.json").read_text())
    assert summary["warmstart"]["steps"] == 4 * (2 if source == "self" else 1)
    assert set(summary["warmstart"]["evaluation"]) == {"rounds_1", "rounds_2"}
    losses = [
        line["warmstart"]["loss"] for line in metric_lines(tmp_path / "whole") if "loss" in line.get("warmstart", {})
    ]
    assert losses[-1] < losses[0]


def test_other_demonstrations_are_refused_on_resume(tmp_path, tiny_model):
    file = tmp_path / "rounds.jsonl"
    shown = {"question": "9+9", "answer": "18", "rounds": [{"reasoning": "9+9=18", "note": "18"}, "\\boxed{18}"]}
    shown["rounds"][1] = {"reasoning": "18", "note": "\\boxed{18}"}
    file.write_text(json.dumps(shown) + "\n")
    settings = recipe(tmp_path, tiny_model, warmstart={"source": "file", "file": str(file)})
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "run", display=Stops(3))
    file.write_text(json.dumps(shown | {"question": "9+9="}) + "\n")
    with pytest.raises(RunFolderError, match="demonstrations of the warm start have changed"):
        train(settings, tmp_path / "run", resume=True, display=Display(quiet=True))


def test_lines_of_a_file_that_cannot_be_used_are_named(tmp_path, tiny_model):
    good = {"question": "9+9", "answer": "18", "rounds": [{"reasoning": "18", "note": "\\boxed{18}"}]}
    bad = [good | {"rounds": []}, good | {"rounds": [{"note": "x"}]}, good | {"answer": "19"}, good | {"question": ""}]
    file = tmp_path / "rounds.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in [good, *bad]))
    settings = recipe(tmp_path, tiny_model, warmstart={"source": "file", "file": str(file)})
    with pytest.raises(BadRows) as error:
        train(settings, tmp_path / "run", display=Display(quiet=True))
    assert sorted(row.line for row in error.value.rows) == [2, 3, 4, 5]
    assert not (tmp_path / "run/metrics.jsonl").exists()  # nothing was spent


def test_traces_are_what_the_stage_trains_on(tmp_path, tiny_model, capsys):
    settings = recipe(tmp_path, tiny_model)
    (tmp_path / "r.toml").write_text(settings.to_toml())
    traces(str(tmp_path / "r.toml"), tmp_path / "rounds.jsonl", left_out=tmp_path / "left.txt")
    written = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    left = (tmp_path / "left.txt").read_text().splitlines()
    assert len(written) + len(left) == 10 and "demonstration" in capsys.readouterr().out
    again = recipe(tmp_path, tiny_model, warmstart={"source": "file", "file": str(tmp_path / "rounds.jsonl")})
    with contextlib.closing(open_session(settings)) as session:
        parts = session.task, demonstrator(session), session.grader
        one, two = (read_demonstrations(each, *parts).trees for each in (settings, again))
    ids = lambda trees: [[(node.prompt_ids, node.token_ids) for node in tree.walk()] for tree in trees]  # noqa: E731
    assert ids(one) == ids(two)


def test_a_source_without_solutions_says_what_to_set(tmp_path, tiny_model):
    settings = recipe(tmp_path, tiny_model, warmstart={"solution_column": "proof"})
    with pytest.raises(DataError, match=r"no column 'proof' of worked solutions .*set warmstart.solution_column"):
        train(settings, tmp_path / "run", display=Display(quiet=True))


def test_a_run_without_a_warm_start_has_no_section_of_it(tmp_path):
    assert "warmstart" not in load_recipe("demo").to_toml()


def test_settings_that_the_source_does_not_use_are_refused(tmp_path, tiny_model):
    for changes in ({"keep": 3}, {"file": "x.jsonl"}, {"source": "file"}, {"source": "", "steps": 9}):
        with pytest.raises(RecipeError, match="warmstart"):
            recipe(tmp_path, tiny_model, warmstart=changes)


def test_a_form_is_not_taught_where_none_is_asked_for(tmp_path, tiny_model):
    with pytest.raises(RecipeError, match=r"rounds.carry = 'tail' asks for none"):
        recipe(tmp_path, tiny_model, rounds={"carry": "tail"}, credit={"format_weight": 0})


def test_a_finished_stage_is_not_repeated(tmp_path, tiny_model):
    settings = recipe(tmp_path, tiny_model)
    train(settings, tmp_path / "run", display=Display(quiet=True))
    shutil.rmtree(tmp_path / "run/checkpoints/step-000001")
    before = (tmp_path / "run/model/model.safetensors").read_bytes()
    train(settings, tmp_path / "run", resume=True, display=Stops(0))
    assert (tmp_path / "run/model/model.safetensors").read_bytes() == before


OWN = """
def cut(solution):
    if solution.startswith("1+"):
        raise ValueError("one is not cut")
    return solution.split(chr(10))

def note(pieces):
    return pieces[-1].split("=")[-1]

def wrong(solution):
    return 3
"""


def own(tmp_path, tiny_model, **names):
    (tmp_path / "mine.py").write_text(OWN)
    changes = {key: f"{tmp_path / 'mine.py'}:{name}" for key, name in names.items()}
    return recipe(tmp_path, tiny_model, warmstart=changes)


def test_functions_of_ones_own_cut_and_make_notes(tmp_path, tiny_model):
    settings = own(tmp_path, tiny_model, cut="cut", notes="note")
    task = load(settings.data)
    found = read_ahead(settings, task)
    assert [str(row).split(": ", 1)[1] for row in found.dropped] == ["warmstart.cut raised ValueError: one is not cut"]
    for tree in found.trees:
        first = next(tree.walk())
        assert first.note == str(sum(map(int, tree.question.text.split("+")[:2])))
    digests = {wish.setting for wish in _wishes(settings)}
    assert {"warmstart.cut", "warmstart.notes"} <= digests


@pytest.mark.parametrize(
    ("name", "problem"),
    [("missing", "has no function 'missing'"), ("wrong", "returned int, not a list of texts")],
)
def test_a_function_that_cannot_be_used_is_refused_before_a_model_is_loaded(tmp_path, tiny_model, name, problem):
    with pytest.raises(RecipeError, match=problem):
        show_plan(own(tmp_path, tiny_model, cut=name), None, None)


def test_a_plan_names_what_is_left_out_by_line(tmp_path, tiny_model, capsys):
    settings = recipe(tmp_path, tiny_model)
    file = tmp_path / "sums.csv"
    header, rest = file.read_text().split("\n", 1)
    file.write_text(f"{header}\n9+9,,18\n{rest}")
    show_plan(settings, None, None)
    told = capsys.readouterr().out
    assert "there is no worked solution" in told and "sums.csv:2:" in told.replace("\n", "")


def test_somebody_elses_recipe_does_not_run_its_functions(tmp_path, tiny_model):
    settings = own(tmp_path, tiny_model, cut="cut")
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text("")
    (tmp_path / "run/recipe.toml").write_text(settings.to_toml())
    load_recipe(tmp_path / "run/recipe.toml")  # as any command but training does
    with pytest.raises(RecipeError, match=r"warmstart.cut = .* which is a program that the warm start runs"):
        load_recipe(tmp_path / "run/recipe.toml", trust=Trust(uses=TRAINING))
